/* Envoy's side of a request: gathered, asked about, and then forwarded, handed on or answered.
 *
 * A request that grows beyond the limit is handed on at once, streaming, to the filter behind this one, which runs the
 * whole application; so are all that Python says so of. */
#include "call.h"
#include "filter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OWN_HEADERS 5

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static Buffer find_header(void *envoy, const char *name) {
  Buffer value = {NULL, 0};
  CALLBACK(http_get_header)(envoy, REQUEST_HEADERS, text(name), &value, 0, NULL);
  return value;
}

static char *append(char *at, Buffer buffer) {
  if (buffer.length > 0) memcpy(at, buffer.ptr, buffer.length);
  return at + buffer.length;
}

static bool is_selected(const Channel *channel, const Header *header) {
  for (size_t i = 0; i < channel->selected_count; i++)
    if (strlen(channel->selected[i]) == header->name_length &&
        memcmp(channel->selected[i], header->name, header->name_length) == 0)
      return true;
  return false;
}

/* "SELECTION POST /path\nname: value\n...": what requests that are decided alike have in common. */
static void write_key(Call *call, void *envoy, const Header *headers, size_t count) {
  Buffer method = find_header(envoy, ":method"), path = find_header(envoy, ":path");
  size_t size = method.length + path.length + 24;
  for (size_t i = 0; i < count; i++) size += headers[i].name_length + headers[i].value_length + 3;
  char *at = call->key = malloc(size);
  if (at == NULL) return;
  pthread_mutex_lock(&call->channel->lock);
  at += sprintf(at, "%lu ", call->channel->selection);
  at = append(at, method);
  *at++ = ' ';
  at = append(at, path);
  *at++ = '\n';
  for (size_t i = 0; i < count; i++) {
    if (!is_selected(call->channel, &headers[i])) continue;
    at = append(at, (Buffer){headers[i].name, headers[i].name_length});
    *at++ = ':';
    *at++ = ' ';
    at = append(at, (Buffer){headers[i].value, headers[i].value_length});
    *at++ = '\n';
  }
  pthread_mutex_unlock(&call->channel->lock);
  call->key_length = (size_t)(at - call->key);
}

static char *copy_chunks(void *envoy, int which, char *at) {
  size_t count = CALLBACK(http_get_body_chunks_size)(envoy, which);
  if (count == 0) return at;
  Buffer few[16], *chunks = count <= 16 ? few : malloc(count * sizeof(Buffer));
  if (chunks == NULL) return NULL;
  if (CALLBACK(http_get_body_chunks)(envoy, which, chunks))
    for (size_t i = 0; i < count; i++) at = append(at, chunks[i]);
  if (chunks != few) free(chunks);
  return at;
}

static size_t body_size(void *envoy, bool received) {
  size_t size = CALLBACK(http_get_body_size)(envoy, BUFFERED_REQUEST_BODY);
  return received ? size + CALLBACK(http_get_body_size)(envoy, RECEIVED_REQUEST_BODY) : size;
}

/* Ask Python what is to become of a request that is whole; false: there is no memory for it. */
static bool ask(Call *call, void *envoy, bool received) {
  size_t count = CALLBACK(http_get_headers_size)(envoy, REQUEST_HEADERS);
  Header few[64], *headers = count <= 64 ? few : malloc(count * sizeof(Header));
  if (headers == NULL || !CALLBACK(http_get_headers)(envoy, REQUEST_HEADERS, headers)) return false;
  write_key(call, envoy, headers, count);
  if (headers != few) free(headers);
  call->body = malloc(body_size(envoy, received) + 1);
  if (call->key == NULL || call->body == NULL) return false;
  char *at = copy_chunks(envoy, BUFFERED_REQUEST_BODY, call->body);
  if (at != NULL && received) at = copy_chunks(envoy, RECEIVED_REQUEST_BODY, at);
  if (at == NULL) return false;
  call->body_length = (size_t)(at - call->body);
  call->scheduler = CALLBACK(http_filter_scheduler_new)(envoy);
  call->state = ASKED;
  channel_ask(call);
  return true;
}

int HOOK(http_filter_request_headers)(void *envoy, void *module, bool end_of_stream) {
  Call *call = module;
  if (!call->channel->attended) {
    call->state = HANDED;
    return CONTINUE;
  }
  Buffer type = find_header(envoy, "content-type");
  call->grpc = type.length >= 16 && memcmp(type.ptr, "application/grpc", 16) == 0;
  if (!end_of_stream) return STOP_ITERATION;
  if (ask(call, envoy, false)) return STOP_ITERATION;
  call->state = HANDED;
  return CONTINUE;
}

int HOOK(http_filter_request_body)(void *envoy, void *module, bool end_of_stream) {
  Call *call = module;
  if (call->state == HANDED) return CONTINUE;
  if (body_size(envoy, true) <= MOST_BODY) {
    if (!end_of_stream || ask(call, envoy, true)) return STOP_AND_WATERMARK; /* not 413 when a burst comes */
  }
  call->state = HANDED;
  return CONTINUE;
}

int HOOK(http_filter_request_trailers)(void *envoy, void *module) {
  Call *call = module;
  if (call->state == HANDED) return CONTINUE;
  if (ask(call, envoy, false)) return STOP_ITERATION;
  call->state = HANDED;
  return CONTINUE;
}

/* Connection headers, what Envoy sets anew from the call itself, and what no longer holds for a changed body. */
static bool is_forwarded(const Header *header, const Call *call) {
  static const char *const left[] = {"host", "content-length", "connection", "transfer-encoding", "x-forwarded-proto"};
  if (header->name[0] == ':') return false;
  for (size_t i = 0; i < sizeof left / sizeof left[0]; i++)
    if (is_named(header, left[i])) return false;
  return !call->drops_encoding || !is_named(header, call->grpc ? "grpc-encoding" : "content-encoding");
}

static Header header(const char *name, Buffer value) {
  return (Header){name, strlen(name), value.ptr, value.length};
}

static void forward(Call *call, void *envoy) {
  size_t count = CALLBACK(http_get_headers_size)(envoy, REQUEST_HEADERS);
  Header few[72], *headers = count + OWN_HEADERS <= 72 ? few : malloc((count + OWN_HEADERS) * sizeof(Header));
  if (headers == NULL || !CALLBACK(http_get_headers)(envoy, REQUEST_HEADERS, headers + OWN_HEADERS)) {
    relay_failure(call, text("out of memory"));
    return;
  }
  Buffer method = find_header(envoy, ":method"), authority = find_header(envoy, ":authority");
  Buffer sent = call->sent;
  char length[24];
  Buffer written = {length, (size_t)snprintf(length, sizeof length, "%zu", sent.length)};
  size_t kept = 0;
  headers[kept++] = header(":method", method);
  headers[kept++] = header(":path", find_header(envoy, ":path"));
  headers[kept++] = header(":scheme", text("http"));
  headers[kept++] = header(":authority", authority.length > 0 ? authority : text("upstream"));
  for (size_t i = OWN_HEADERS; i < count + OWN_HEADERS; i++)
    if (is_forwarded(&headers[i], call)) headers[kept++] = headers[i];
  /* gRPC clients do not state it, and an empty body of a GET is none. */
  bool stated = find_header(envoy, "content-length").length > 0;
  if (stated || (!call->grpc && (sent.length > 0 || method.length > 3)))
    headers[kept++] = header("content-length", written);
  uint64_t stream;
  call->state = SENT;
  call->sent_at = now();
  int result = CALLBACK(http_filter_start_http_stream)(envoy, &stream, call->cluster, headers, kept, sent, true, 0);
  if (headers != few) free(headers);
  if (result != 0) relay_failure(call, text("no connection can be made to its cluster"));
}

static void answer(Call *call, void *envoy) {
  call->state = ANSWERED;
  if (call->started) { /* the upstream's answer broke off: gRPC has a status for it, REST only the connection's end */
    if (call->trailers != NULL)
      CALLBACK(http_send_response_trailers)(envoy, call->trailers, call->trailer_count);
    else
      CALLBACK(http_filter_reset_stream)(envoy, LOCAL_RESET, text("upstream_answer_broke_off"));
    return;
  }
  bool ends = call->trailers == NULL;
  CALLBACK(http_send_response_headers)(envoy, call->headers, call->header_count, ends && call->answer.length == 0);
  if (call->answer.length > 0) CALLBACK(http_send_response_data)(envoy, call->answer, ends);
  if (!ends) CALLBACK(http_send_response_trailers)(envoy, call->trailers, call->trailer_count);
}

void HOOK(http_filter_scheduled)(void *envoy, void *module, uint64_t event) {
  (void)event;
  Call *call = module;
  if (call->decision == FORWARD && call->state == ASKED) {
    forward(call, envoy);
  } else if (call->decision == HAND_ON && call->state == ASKED) {
    call->state = HANDED;
    CALLBACK(http_filter_continue_decoding)(envoy);
  } else if (call->decision == ANSWER && call->state == FAILED) {
    answer(call, envoy);
  }
}

void note_answered(Call *call) { call->answered_after = now() - call->sent_at; }
