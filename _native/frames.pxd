cdef class Taker:
    cdef public Py_ssize_t waiting
    cdef readonly int opcode

    cdef int take(self, const unsigned char *text, Py_ssize_t size) except -1
