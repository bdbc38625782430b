/* One request on its way from Envoy to Python and back, and the channel that carries those of one listener.
 *
 * Envoy's thread owns a Call until it asks (`channel_ask`); then Python decides and says so (`decision`), and Envoy's
 * thread does it. Whatever is a Python object in it is let go by Python's side alone, with the interpreter's lock. */
#pragma once

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>

#include "abi.h"

#define MOST_CHANNELS 16
#define MOST_SELECTED 32

typedef struct Channel Channel;
typedef struct Call Call;

typedef enum { UNDECIDED, FORWARD, HAND_ON, ANSWER } Decision;
typedef enum { GATHERING, ASKED, SENT, FAILED, ANSWERED, HANDED } State;
typedef enum { BROKEN_OFF, RELAYED, RELAYED_ERROR, NOT_OURS } Outcome;

struct Call {
  Channel *channel;
  void *scheduler;
  _Atomic int holders; /* Envoy's filter or the list of finished calls; the list of arrived ones; a Python object */
  _Atomic bool gone;   /* Envoy's stream has ended */
  Call *next_arrived, *next_finished;

  /* What Python is asked: written before it is asked. */
  char *key;
  size_t key_length;
  char *body;
  size_t body_length;
  char *reason; /* why the upstream's answer failed; NULL: a new request */
  size_t reason_length;

  /* What Python says: written before the scheduler is told. */
  Decision decision;
  bool drops_encoding;
  bool tells;                 /* Python is woken when it has finished */
  Buffer cluster, sent, mark; /* to forward it; a mark that is NULL is none */
  Buffer answer;              /* to answer it, with its headers and trailers */
  Header *headers, *trailers;
  size_t header_count, trailer_count;
  PyObject *token;        /* handed back when the call has finished */
  PyObject *held_objects; /* what all of these point into */
  PyObject *answer_objects;

  /* Envoy's thread alone. */
  State state;
  bool grpc, started, failing, completed, carried;
  int status; /* of the upstream's answer, the gRPC one where it has one; -1: none was seen */
  uint64_t sent_at, answered_after; /* nanoseconds */
  Header *held;                     /* the answer's beginning, until more of it comes */
  char *held_data;
  size_t held_count, held_size;
};

struct Channel {
  char name[64];
  int wake; /* an eventfd, readable while calls wait, or have finished whose end is to be told */
  pthread_mutex_t lock;
  bool signalled;
  _Atomic bool attended; /* somebody in Python takes calls; where nobody does, all are handed on */
  Call *arrived, *last_arrived, *finished, *last_finished;
  char *selected[MOST_SELECTED]; /* names of the headers that Python sees */
  size_t selected_count;
  unsigned long selection; /* counts the changes of what is selected; every key begins with it */
};

Channel *channel_open(const char *name, size_t length); /* the same one for the same name; NULL when there are too many */
void channel_ask(Call *call);                           /* Envoy's thread */
void channel_finish(Call *call);                        /* Envoy's thread; hands its hold over */
Outcome call_outcome(const Call *call);
void note_status(Call *call, const Header *headers, size_t count);
void call_free(Call *call); /* with the interpreter's lock, or before Python was ever asked */

static inline Buffer text(const char *value) {
  Buffer buffer = {value, __builtin_strlen(value)};
  return buffer;
}
