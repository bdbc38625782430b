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

void HOOK(http_filter_http_stream_headers)(void *envoy, void *module, uint64_t stream, Header *headers, size_t count,
                                           bool end_stream) {
  (void)stream;
  Call *call = module;
  if (find(headers, count, "x-envoy-upstream-service-time") == NULL) {
    begin_failure(call, headers, count, end_stream);
    return;
  }
  note_answered(call);
  Header few[66], *sent = count < 65 ? few : malloc((count + 1) * sizeof(Header));
  if (sent == NULL) {
    relay_failure(call, text("out of memory"));
    return;
  }
  size_t kept = 0;
  for (size_t i = 0; i < count; i++)
    if (is_returned(&headers[i])) sent[kept++] = headers[i];
  if (call->mark != NULL)
    sent[kept++] = (Header){"x-crossfade", 11, PyBytes_AsString(call->mark), (size_t)PyBytes_Size(call->mark)};
  const Header *code = find(headers, count, ":status");
  bool told = !call->grpc || find(headers, count, "grpc-status") != NULL;
  call->carried = code != NULL && code->value_length == 3 && memcmp(code->value, "200", 3) == 0 && !(call->grpc && told);
  call->started = true;
  if (end_stream) call->completed = true;
  CALLBACK(http_send_response_headers)(envoy, sent, kept, end_stream && told);
  if (sent != few) free(sent);
  if (end_stream && !told) cut_short(envoy);
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
