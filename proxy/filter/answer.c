/* Envoy's side of an answer: relayed as it comes, marked; what is no answer of the database is put before Python. */
#include "call.h"
#include "filter.h"

#include <stdlib.h>
#include <string.h>

static const char CUT_SHORT[] = "crossfade: the upstream's answer ended without a status";

static void add_reason(Call *call, Buffer part) {
  size_t room = MOST_REASON - call->reason_length, length = part.length < room ? part.length : room;
  char *grown = realloc(call->reason, call->reason_length + length + 1);
  if (grown == NULL) return;
  if (length > 0) memcpy(grown + call->reason_length, part.ptr, length);
  call->reason = grown;
  call->reason_length += length;
}

void relay_failure(Call *call, Buffer reason) {
  if (call->state != SENT || call->completed) return;
  call->state = FAILED;
  if (call->reason_length == 0) add_reason(call, reason);
  call->decision = UNDECIDED;
  channel_ask(call);
}

static void cut_short(void *envoy) {
  Header status[] = {{"grpc-status", 11, "14", 2}, {"grpc-message", 12, CUT_SHORT, sizeof CUT_SHORT - 1}};
  CALLBACK(http_send_response_trailers)(envoy, status, 2);
}

static const Header *find(const Header *headers, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (is_named(&headers[i], name)) return &headers[i];
  return NULL;
}

static int read_number(const Header *header) {
  int number = 0;
  for (size_t i = 0; i < header->value_length; i++) {
    if (header->value[i] < '0' || header->value[i] > '9' || number > 1000) return -1;
    number = number * 10 + (header->value[i] - '0');
  }
  return header->value_length > 0 ? number : -1;
}

void note_status(Call *call, const Header *headers, size_t count) {
  const Header *status = find(headers, count, call->grpc ? "grpc-status" : ":status");
  if (status != NULL) call->status = read_number(status);
}

static bool is_returned(const Header *header) {
  return !is_named(header, "x-envoy-upstream-service-time") && !is_named(header, "transfer-encoding") &&
         !is_named(header, "connection");
}

/* Envoy's own answers (connection refused, reset) lack the header that it sets on those of the database. */
static void begin_failure(Call *call, const Header *headers, size_t count, bool end_stream) {
  const Header *message = find(headers, count, "grpc-message"), *status = find(headers, count, ":status");
  call->failing = true;
  if (message != NULL) add_reason(call, (Buffer){message->value, message->value_length});
  if (!end_stream) return;
  char told[32] = "HTTP ";
  size_t length = status != NULL && status->value_length < 20 ? status->value_length : 0;
  if (length > 0) memcpy(told + 5, status->value, length);
  relay_failure(call, (Buffer){told, 5 + length});
}

/* A copy of the headers that go back, in one piece of memory; NULL: there is none. */
static Header *copy_returned(const Call *call, const Header *headers, size_t count, size_t *kept) {
  Header mark = {"x-crossfade", 11, call->mark.ptr, call->mark.length};
  size_t size = (count + 1) * sizeof(Header) + mark.name_length + mark.value_length;
  for (size_t i = 0; i < count; i++) size += headers[i].name_length + headers[i].value_length;
  Header *copied = malloc(size);
  if (copied == NULL) return NULL;
  char *at = (char *)(copied + count + 1);
  *kept = 0;
  for (size_t i = 0; i <= count; i++) {
    const Header *header = i < count ? &headers[i] : &mark;
    if (header->value == NULL || (i < count && !is_returned(header))) continue;
    Header *copy = &copied[(*kept)++];
    *copy = (Header){at, header->name_length, at + header->name_length, header->value_length};
    memcpy(at, header->name, header->name_length);
    memcpy(at + header->name_length, header->value, header->value_length);
    at += header->name_length + header->value_length;
  }
  return copied;
}

/* Send what was held back. Headers and a first piece wait for the next one, so that an answer that breaks off at once
 * can still be answered as a failure. */
static void begin_answer(Call *call, void *envoy, bool end_stream) {
  if (call->started) return;
  call->started = true;
  CALLBACK(http_send_response_headers)(envoy, call->held, call->held_count, end_stream);
  if (call->held_size > 0)
    CALLBACK(http_send_response_data)(envoy, (Buffer){call->held_data, call->held_size}, false);
}

static bool hold_data(Call *call, const Buffer *data, size_t count) {
  size_t size = 0;
  for (size_t i = 0; i < count; i++) size += data[i].length;
  char *at = call->held_data = malloc(size + 1);
  if (at == NULL) return false;
  for (size_t i = 0; i < count; i++) {
    memcpy(at, data[i].ptr, data[i].length);
    at += data[i].length;
  }
  call->held_size = size;
  return true;
}

void HOOK(http_filter_http_stream_headers)(void *envoy, void *module, uint64_t stream, Header *headers, size_t count,
                                           bool end_stream) {
  (void)stream;
  Call *call = module;
  if (find(headers, count, "x-envoy-upstream-service-time") == NULL) {
    begin_failure(call, headers, count, end_stream);
    return;
  }
  note_answered(call);
  note_status(call, headers, count);
  call->held = copy_returned(call, headers, count, &call->held_count);
  if (call->held == NULL) {
    relay_failure(call, text("out of memory"));
    return;
  }
  const Header *code = find(headers, count, ":status");
  bool told = !call->grpc || find(headers, count, "grpc-status") != NULL;
  call->carried = code != NULL && code->value_length == 3 && memcmp(code->value, "200", 3) == 0 && !(call->grpc && told);
  if (!end_stream) return;
  call->completed = true;
  begin_answer(call, envoy, told);
  if (!told) cut_short(envoy);
}

void HOOK(http_filter_http_stream_data)(void *envoy, void *module, uint64_t stream, const Buffer *data, size_t count,
                                        bool end_stream) {
  (void)stream;
  Call *call = module;
  if (call->failing) {
    for (size_t i = 0; i < count; i++) add_reason(call, data[i]);
    if (end_stream) relay_failure(call, text("it ended its answer early"));
    return;
  }
  if (!call->started && call->held_data == NULL && !end_stream && hold_data(call, data, count)) return;
  begin_answer(call, envoy, false);
  bool cut = end_stream && call->grpc; /* gRPC ends with trailers */
  if (end_stream) call->completed = true;
  for (size_t i = 0; i < count; i++)
    CALLBACK(http_send_response_data)(envoy, data[i], end_stream && !cut && i + 1 == count);
  if (count == 0 && end_stream && !cut) CALLBACK(http_send_response_data)(envoy, text(""), true);
  if (cut) cut_short(envoy);
}

void HOOK(http_filter_http_stream_trailers)(void *envoy, void *module, uint64_t stream, Header *trailers,
                                            size_t count) {
  (void)stream;
  Call *call = module;
  if (call->failing) {
    relay_failure(call, text("it ended its answer early"));
    return;
  }
  call->completed = true;
  note_status(call, trailers, count);
  begin_answer(call, envoy, false);
  CALLBACK(http_send_response_trailers)(envoy, trailers, count);
}

void HOOK(http_filter_http_stream_complete)(void *envoy, void *module, uint64_t stream) {
  (void)envoy, (void)module, (void)stream;
}

void HOOK(http_filter_http_stream_reset)(void *envoy, void *module, uint64_t stream, int reason) {
  static const char *const reasons[] = {"the connection failed",
                                        "the connection ended",
                                        "reset by this side",
                                        "refused by this side",
                                        "too many calls wait for it",
                                        "it reset the call",
                                        "it refused the call",
                                        "it broke the protocol"};
  (void)envoy, (void)stream;
  bool known = reason >= 0 && (size_t)reason < sizeof reasons / sizeof reasons[0];
  relay_failure(module, text(known ? reasons[reason] : "it reset the call"));
}
