/* The rest of what Envoy asks of a module: its start, each stream's start and end, and the hooks that do nothing. */
#include "call.h"

#include <stdlib.h>

const char *HOOK(program_init)(void) { return ABI_VERSION; }

void *HOOK(http_filter_config_new)(void *envoy, Buffer name, Buffer settings) {
  (void)envoy, (void)name;
  return channel_open(settings.ptr, settings.length);
}

void *HOOK(http_filter_new)(void *config, void *envoy) {
  (void)envoy;
  Call *call = calloc(1, sizeof(Call));
  if (call == NULL) return NULL;
  call->channel = config;
  call->holders = 1;
  call->status = -1;
  return call;
}

void HOOK(http_filter_stream_complete)(void *envoy, void *module) {
  (void)envoy;
  ((Call *)module)->gone = true;
}

void HOOK(http_filter_destroy)(void *module) {
  Call *call = module;
  call->gone = true;
  if (call->key == NULL)
    call_free(call); /* Python never heard of it */
  else
    channel_finish(call);
}

void HOOK(http_filter_config_destroy)(void *config) { (void)config; }

void *HOOK(http_filter_per_route_config_new)(Buffer name, Buffer settings) {
  (void)name, (void)settings;
  return (void *)ABI_VERSION; /* nothing is configured by route; NULL would refuse it */
}

void HOOK(http_filter_per_route_config_destroy)(void *config) { (void)config; }

int HOOK(http_filter_response_headers)(void *envoy, void *module, bool end_of_stream) {
  (void)envoy, (void)module, (void)end_of_stream;
  return CONTINUE;
}

int HOOK(http_filter_response_body)(void *envoy, void *module, bool end_of_stream) {
  (void)envoy, (void)module, (void)end_of_stream;
  return CONTINUE;
}

int HOOK(http_filter_response_trailers)(void *envoy, void *module) {
  (void)envoy, (void)module;
  return CONTINUE;
}

int HOOK(http_filter_local_reply)(void *envoy, void *module, uint32_t code, Buffer details, bool reset) {
  (void)envoy, (void)module, (void)code, (void)details, (void)reset;
  return CONTINUE;
}

void HOOK(http_filter_downstream_above_write_buffer_high_watermark)(void *envoy, void *module) {
  (void)envoy, (void)module;
}

void HOOK(http_filter_downstream_below_write_buffer_low_watermark)(void *envoy, void *module) {
  (void)envoy, (void)module;
}

void HOOK(http_filter_http_callout_done)(void *envoy, void *module, uint64_t callout, int result, Header *headers,
                                         size_t header_count, Buffer *body, size_t chunks) {
  (void)envoy, (void)module, (void)callout, (void)result, (void)headers, (void)header_count, (void)body, (void)chunks;
}

/* Those of calls that belong to no request; none is ever started. */
void HOOK(http_filter_config_scheduled)(void *envoy, void *config, uint64_t event) {
  (void)envoy, (void)config, (void)event;
}

void HOOK(http_filter_config_http_callout_done)(void *envoy, void *config, uint64_t callout, int result,
                                                Header *headers, size_t header_count, Buffer *body, size_t chunks) {
  (void)envoy, (void)config, (void)callout, (void)result, (void)headers, (void)header_count, (void)body, (void)chunks;
}

void HOOK(http_filter_config_http_stream_headers)(void *envoy, void *config, uint64_t stream, Header *headers,
                                                  size_t count, bool end_stream) {
  (void)envoy, (void)config, (void)stream, (void)headers, (void)count, (void)end_stream;
}

void HOOK(http_filter_config_http_stream_data)(void *envoy, void *config, uint64_t stream, const Buffer *data,
                                               size_t count, bool end_stream) {
  (void)envoy, (void)config, (void)stream, (void)data, (void)count, (void)end_stream;
}

void HOOK(http_filter_config_http_stream_trailers)(void *envoy, void *config, uint64_t stream, Header *trailers,
                                                   size_t count) {
  (void)envoy, (void)config, (void)stream, (void)trailers, (void)count;
}

void HOOK(http_filter_config_http_stream_complete)(void *envoy, void *config, uint64_t stream) {
  (void)envoy, (void)config, (void)stream;
}

void HOOK(http_filter_config_http_stream_reset)(void *envoy, void *config, uint64_t stream, int reason) {
  (void)envoy, (void)config, (void)stream, (void)reason;
}
