/*
 * One call of the C library fails, and what is held is counted: between the files of machrv/native/linux and the C library, by
 * the linker's --wrap (faults.c; tests/sanitize/programs.py has the options).
 */

#ifndef MACHRV_FAULTS_H
#define MACHRV_FAULTS_H

#include <stdbool.h>

/* What can be made to fail, up to NULL: the name of a call. "memory" is malloc, calloc and realloc. */
extern const char *const fault_calls[];

/* From here on the nth call of this one fails, counted from 1; all others do what they are for. */
void faults_begin(int call, unsigned nth);
/* Whether it came to that. Nothing fails from here on. */
bool faults_end(void);
/* For what the scenario does on its own account. */
void faults_pause(void);
void faults_resume(void);

/* What was allocated, and not freed. */
long faults_allocations(void);
/* Descriptors that are open. */
int faults_descriptors(void);

#endif
