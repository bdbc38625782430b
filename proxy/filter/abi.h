/* What this filter uses of Envoy's ABI for dynamic modules (v0.1.0, Envoy 1.38 and newer).
 *
 * Declared here, since Envoy's own header is no package. The callbacks are weak: outside Envoy they do not exist, and
 * the module can be imported all the same. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ABI_VERSION "v0.1.0"

typedef struct {
  const char *ptr;
  size_t length;
} Buffer;

typedef struct {
  const char *name;
  size_t name_length;
  const char *value;
  size_t value_length;
} Header;

enum { REQUEST_HEADERS = 0 };                        /* header maps */
enum { RECEIVED_REQUEST_BODY, BUFFERED_REQUEST_BODY }; /* bodies */
enum { CONTINUE, STOP_ITERATION, STOP_AND_WATERMARK = 2 }; /* the last keeps a body, and slows its sender down */
enum { LOCAL_RESET = 0 };                            /* why a stream is reset */

#define CALLBACK(name) __attribute__((weak)) envoy_dynamic_module_callback_##name

size_t CALLBACK(http_get_headers_size)(void *envoy, int map);
bool CALLBACK(http_get_headers)(void *envoy, int map, Header *headers);
bool CALLBACK(http_get_header)(void *envoy, int map, Buffer name, Buffer *value, size_t index, size_t *count);
size_t CALLBACK(http_get_body_size)(void *envoy, int body);
size_t CALLBACK(http_get_body_chunks_size)(void *envoy, int body);
bool CALLBACK(http_get_body_chunks)(void *envoy, int body, Buffer *chunks);
void CALLBACK(http_filter_continue_decoding)(void *envoy);
void CALLBACK(http_filter_reset_stream)(void *envoy, int reason, Buffer details);
void CALLBACK(http_send_response_headers)(void *envoy, Header *headers, size_t count, bool end_stream);
void CALLBACK(http_send_response_data)(void *envoy, Buffer data, bool end_stream);
void CALLBACK(http_send_response_trailers)(void *envoy, Header *trailers, size_t count);
int CALLBACK(http_filter_start_http_stream)(void *envoy, uint64_t *stream, Buffer cluster, Header *headers,
                                            size_t count, Buffer body, bool end_stream, uint64_t timeout_ms);
void *CALLBACK(http_filter_scheduler_new)(void *envoy);
void CALLBACK(http_filter_scheduler_commit)(void *scheduler, uint64_t event);
void CALLBACK(http_filter_scheduler_delete)(void *scheduler);
#undef CALLBACK
#define CALLBACK(name) envoy_dynamic_module_callback_##name
#define HOOK(name) envoy_dynamic_module_on_##name
