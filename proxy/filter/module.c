/* Python's side: `open(name)` gives the channel of a listener, which hands out calls and takes decisions on them. */
#include "call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
  PyObject_HEAD
  Call *call;
} CallObject;

typedef struct {
  PyObject_HEAD
  Channel *channel;
} ChannelObject;

static PyTypeObject *call_type, *channel_type;

static void let_go(Call *call) {
  if (--call->holders == 0) call_free(call);
}

static void call_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  let_go(((CallObject *)self)->call);
  PyObject_Free(self);
  Py_DecRef((PyObject *)type);
}

static PyObject *decide(Call *call, Decision decision) {
  if (call->gone) Py_RETURN_FALSE;
  call->decision = decision;
  CALLBACK(http_filter_scheduler_commit)(call->scheduler, decision);
  Py_RETURN_TRUE;
}

static PyObject *keep(PyObject *value) {
  Py_IncRef(value);
  return value;
}

static Buffer bytes_of(PyObject *value) { return (Buffer){PyBytes_AsString(value), (size_t)PyBytes_Size(value)}; }

static PyObject *call_forward(PyObject *self, PyObject *const *given, Py_ssize_t count) {
  if (count != 6 || !PyBytes_Check(given[0]) || !PyBytes_Check(given[1]) ||
      !(given[3] == Py_None || PyBytes_Check(given[3]))) {
    PyErr_SetString(PyExc_TypeError, "forward(cluster: bytes, body: bytes, drops_encoding: bool, mark: bytes | None, token, tells: bool)");
    return NULL;
  }
  Call *call = ((CallObject *)self)->call;
  if (call->held_objects != NULL) {
    PyErr_SetString(PyExc_RuntimeError, "the call is forwarded already");
    return NULL;
  }
  if (call->gone) Py_RETURN_FALSE;
  call->held_objects = PyTuple_Pack(3, given[0], given[1], given[3]);
  if (call->held_objects == NULL) return NULL;
  call->cluster = bytes_of(given[0]);
  call->sent = bytes_of(given[1]);
  call->drops_encoding = given[2] == Py_True;
  if (given[3] != Py_None) call->mark = bytes_of(given[3]);
  call->token = keep(given[4]);
  call->tells = given[5] == Py_True;
  return decide(call, FORWARD);
}

static PyObject *call_hand_on(PyObject *self, PyObject *unused) {
  (void)unused;
  Call *call = ((CallObject *)self)->call;
  if (call->held_objects != NULL) { /* then it is too late */
    PyErr_SetString(PyExc_RuntimeError, "the call is forwarded already");
    return NULL;
  }
  return decide(call, HAND_ON);
}

/* Headers of a tuple of (bytes, bytes), which must live on; NULL with an error set. */
static Header *read_headers(PyObject *pairs, size_t *count) {
  Py_ssize_t size = PyTuple_Size(pairs);
  if (size < 0) return NULL;
  Header *headers = calloc((size_t)size + 1, sizeof(Header));
  if (headers == NULL) return (Header *)PyErr_NoMemory();
  for (Py_ssize_t i = 0; i < size; i++) {
    PyObject *pair = PyTuple_GetItem(pairs, i);
    PyObject *name = pair != NULL ? PyTuple_GetItem(pair, 0) : NULL, *value = name ? PyTuple_GetItem(pair, 1) : NULL;
    char *name_at, *value_at;
    Py_ssize_t name_length, value_length;
    if (value == NULL || PyBytes_AsStringAndSize(name, &name_at, &name_length) < 0 ||
        PyBytes_AsStringAndSize(value, &value_at, &value_length) < 0) {
      free(headers);
      return NULL;
    }
    headers[i] = (Header){name_at, (size_t)name_length, value_at, (size_t)value_length};
  }
  *count = (size_t)size;
  return headers;
}

static PyObject *call_answer(PyObject *self, PyObject *given) {
  Call *call = ((CallObject *)self)->call;
  PyObject *headers, *body, *trailers;
  if (!PyArg_ParseTuple(given, "O!SO:answer", &PyTuple_Type, &headers, &body, &trailers)) return NULL;
  if (call->answer_objects != NULL) {
    PyErr_SetString(PyExc_RuntimeError, "the call is answered already");
    return NULL;
  }
  call->headers = read_headers(headers, &call->header_count);
  if (call->headers == NULL) return NULL;
  if (trailers != Py_None) {
    call->trailers = read_headers(trailers, &call->trailer_count);
    if (call->trailers == NULL) return NULL;
  }
  call->answer = bytes_of(body);
  call->answer_objects = keep(given);
  return decide(call, ANSWER);
}

static PyObject *call_gone(PyObject *self, void *unused) {
  (void)unused;
  return PyBool_FromLong(((CallObject *)self)->call->gone);
}

static PyObject *call_token(PyObject *self, void *unused) {
  (void)unused;
  PyObject *token = ((CallObject *)self)->call->token;
  return keep(token != NULL ? token : Py_None);
}

static PyObject *call_started(PyObject *self, void *unused) {
  (void)unused;
  return PyBool_FromLong(((CallObject *)self)->call->started);
}

static PyObject *wrap(Call *call) {
  CallObject *object = PyObject_New(CallObject, call_type);
  if (object != NULL) object->call = call; /* takes over the hold of the list it came from */
  return (PyObject *)object;
}

/* (call, key, body) of a new one, (call, None, reason) of one that the upstream did not answer. */
static PyObject *describe(Call *call) {
  bool failed = call->reason != NULL;
  PyObject *key = failed ? keep(Py_None) : PyBytes_FromStringAndSize(call->key, (Py_ssize_t)call->key_length);
  PyObject *body = failed ? PyBytes_FromStringAndSize(call->reason, (Py_ssize_t)call->reason_length)
                          : PyBytes_FromStringAndSize(call->body, (Py_ssize_t)call->body_length);
  PyObject *object = wrap(call);
  PyObject *tuple = key && body && object ? PyTuple_Pack(3, object, key, body) : NULL;
  Py_DecRef(key), Py_DecRef(body), Py_DecRef(object);
  if (!failed) {
    free(call->body);
    call->body = NULL;
  }
  return tuple;
}

static Call *detach_arrived(Channel *channel, Py_ssize_t most) {
  pthread_mutex_lock(&channel->lock);
  Call *first = channel->arrived, *last = first;
  for (Py_ssize_t i = 1; i < most && last != NULL && last->next_arrived != NULL; i++) last = last->next_arrived;
  if (last != NULL) {
    channel->arrived = last->next_arrived;
    last->next_arrived = NULL;
  }
  if (channel->arrived == NULL && channel->signalled) {
    uint64_t count;
    channel->signalled = !(read(channel->wake, &count, sizeof count) == sizeof count || errno == EAGAIN);
  }
  pthread_mutex_unlock(&channel->lock);
  return first;
}

static PyObject *channel_take(PyObject *self, PyObject *given) {
  Py_ssize_t most;
  if (!PyArg_ParseTuple(given, "n:take", &most)) return NULL;
  Call *call = detach_arrived(((ChannelObject *)self)->channel, most);
  PyObject *taken = PyList_New(0);
  while (call != NULL) {
    Call *next = call->next_arrived;
    PyObject *described = describe(call);
    if (described == NULL || taken == NULL || PyList_Append(taken, described) < 0) abort(); /* no memory: start anew */
    Py_DecRef(described);
    call = next;
  }
  return taken;
}

static PyObject *channel_finished(PyObject *self, PyObject *unused) {
  (void)unused;
  Channel *channel = ((ChannelObject *)self)->channel;
  pthread_mutex_lock(&channel->lock);
  Call *call = channel->finished;
  channel->finished = channel->last_finished = NULL;
  pthread_mutex_unlock(&channel->lock);
  PyObject *finished = PyList_New(0);
  while (call != NULL) {
    Call *next = call->next_finished;
    if (call->token != NULL && call_outcome(call) != NOT_OURS) {
      PyObject *one = Py_BuildValue("Oidi", call->token, call_outcome(call), (double)call->answered_after / 1e9, call->status);
      if (one == NULL || finished == NULL || PyList_Append(finished, one) < 0) abort();
      Py_DecRef(one);
    }
    let_go(call);
    call = next;
  }
  return finished;
}

static PyObject *channel_select(PyObject *self, PyObject *given) {
  Channel *channel = ((ChannelObject *)self)->channel;
  Py_ssize_t count = PyTuple_Size(given);
  if (count > MOST_SELECTED) {
    PyErr_Format(PyExc_ValueError, "at most %d headers can be selected, not %zd", MOST_SELECTED, count);
    return NULL;
  }
  char *names[MOST_SELECTED];
  for (Py_ssize_t i = 0; i < count; i++) {
    char *name = PyBytes_AsString(PyTuple_GetItem(given, i));
    if (name == NULL) return NULL;
    names[i] = strdup(name);
  }
  pthread_mutex_lock(&channel->lock);
  for (size_t i = 0; i < channel->selected_count; i++) free(channel->selected[i]);
  memcpy(channel->selected, names, (size_t)count * sizeof names[0]);
  channel->selected_count = (size_t)count;
  unsigned long selection = ++channel->selection;
  pthread_mutex_unlock(&channel->lock);
  return PyLong_FromUnsignedLong(selection);
}

static PyObject *channel_attend(PyObject *self, PyObject *given) {
  int attends;
  if (!PyArg_ParseTuple(given, "p:attend", &attends)) return NULL;
  ((ChannelObject *)self)->channel->attended = attends;
  Py_RETURN_NONE;
}

static PyObject *channel_fileno(PyObject *self, PyObject *unused) {
  (void)unused;
  return PyLong_FromLong(((ChannelObject *)self)->channel->wake);
}

static void channel_dealloc(PyObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_Free(self); /* the channel itself lives as long as the process */
  Py_DecRef((PyObject *)type);
}

static PyObject *open_channel(PyObject *module, PyObject *given) {
  (void)module;
  const char *name;
  Py_ssize_t length;
  if (!PyArg_ParseTuple(given, "s#:open", &name, &length)) return NULL;
  Channel *channel = channel_open(name, (size_t)length);
  if (channel == NULL) return PyErr_Format(PyExc_OSError, "no channel %s: %s", name, strerror(errno));
  ChannelObject *object = PyObject_New(ChannelObject, channel_type);
  if (object != NULL) object->channel = channel;
  return (PyObject *)object;
}

static PyMethodDef call_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))call_forward, METH_FASTCALL, "Send it on; False when the client has gone."},
    {"hand_on", call_hand_on, METH_NOARGS, "Leave it to the filter behind this one; False when the client has gone."},
    {"answer", call_answer, METH_VARARGS, "Answer one that the upstream did not; False when the client has gone."},
    {NULL, NULL, 0, NULL}};
static PyGetSetDef call_members[] = {{"gone", call_gone, NULL, "Whether its stream has ended.", NULL},
                                     {"started", call_started, NULL, "Whether an answer has begun.", NULL},
                                     {"token", call_token, NULL, "What it was forwarded with.", NULL},
                                     {NULL, NULL, NULL, NULL, NULL}};
static PyType_Slot call_slots[] = {
    {Py_tp_dealloc, call_dealloc}, {Py_tp_methods, call_methods}, {Py_tp_getset, call_members}, {0, NULL}};
static PyType_Spec call_spec = {"crossfade.proxy._filter.Call", sizeof(CallObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, call_slots};

static PyMethodDef channel_methods[] = {
    {"fileno", channel_fileno, METH_NOARGS, "Readable while calls wait."},
    {"attend", channel_attend, METH_VARARGS, "Say whether calls are taken; while they are not, all are handed on."},
    {"take", channel_take, METH_VARARGS, "Up to so many calls that wait."},
    {"finished", channel_finished, METH_NOARGS, "(token, outcome, seconds, status) of each forwarded call that has ended."},
    {"select", channel_select, METH_VARARGS, "Say which headers keys are made of; the number that such keys begin with."},
    {NULL, NULL, 0, NULL}};
static PyType_Slot channel_slots[] = {{Py_tp_dealloc, channel_dealloc}, {Py_tp_methods, channel_methods}, {0, NULL}};
static PyType_Spec channel_spec = {"crossfade.proxy._filter.Channel", sizeof(ChannelObject), 0,
                                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, channel_slots};

static PyMethodDef functions[] = {{"open", open_channel, METH_VARARGS, "The channel of a listener."},
                                  {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_filter", "Envoy's filter, seen from Python.", -1,
                                        functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__filter(void) {
  call_type = (PyTypeObject *)PyType_FromSpec(&call_spec);
  channel_type = (PyTypeObject *)PyType_FromSpec(&channel_spec);
  if (call_type == NULL || channel_type == NULL) return NULL;
  return PyModule_Create(&definition);
}
