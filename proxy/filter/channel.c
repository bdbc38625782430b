/* The queues between Envoy's thread and Python's event loop. One lock, held for a few pointers. */
#include "call.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static Channel channels[MOST_CHANNELS];
static size_t channel_count;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static Channel *find_or_add(const char *name, size_t length) {
  for (size_t i = 0; i < channel_count; i++)
    if (strlen(channels[i].name) == length && memcmp(channels[i].name, name, length) == 0) return &channels[i];
  if (channel_count == MOST_CHANNELS || length >= sizeof channels[0].name) return NULL;
  Channel *channel = &channels[channel_count];
  channel->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (channel->wake < 0) return NULL;
  memcpy(channel->name, name, length);
  pthread_mutex_init(&channel->lock, NULL);
  channel_count++;
  return channel;
}

Channel *channel_open(const char *name, size_t length) {
  pthread_mutex_lock(&opening);
  Channel *channel = find_or_add(name, length);
  pthread_mutex_unlock(&opening);
  return channel;
}

/* Wake Python's event loop, once until it has looked. */
static void wake_and_unlock(Channel *channel) {
  bool wakes = !channel->signalled;
  channel->signalled = true;
  pthread_mutex_unlock(&channel->lock);
  uint64_t one = 1;
  if (wakes && write(channel->wake, &one, sizeof one) < 0) abort(); /* an eventfd takes a 1 unless it is closed */
}

void channel_ask(Call *call) {
  Channel *channel = call->channel;
  call->holders++;
  call->next_arrived = NULL;
  pthread_mutex_lock(&channel->lock);
  if (channel->arrived == NULL)
    channel->arrived = call;
  else
    channel->last_arrived->next_arrived = call;
  channel->last_arrived = call;
  wake_and_unlock(channel);
}

void channel_finish(Call *call) {
  Channel *channel = call->channel;
  call->next_finished = NULL;
  pthread_mutex_lock(&channel->lock);
  if (channel->finished == NULL)
    channel->finished = call;
  else
    channel->last_finished->next_finished = call;
  channel->last_finished = call;
  if (call->tells)
    wake_and_unlock(channel);
  else
    pthread_mutex_unlock(&channel->lock);
}

Outcome call_outcome(const Call *call) {
  if (call->state == HANDED || call->state == ANSWERED) return NOT_OURS;
  if (!call->completed) return BROKEN_OFF;
  return call->carried ? RELAYED : RELAYED_ERROR;
}

void call_free(Call *call) {
  if (call->scheduler != NULL) CALLBACK(http_filter_scheduler_delete)(call->scheduler);
  Py_DecRef(call->token);
  Py_DecRef(call->held_objects);
  Py_DecRef(call->answer_objects);
  free(call->key);
  free(call->body);
  free(call->reason);
  free(call->held);
  free(call->held_data);
  free(call->headers);
  free(call->trailers);
  free(call);
}
