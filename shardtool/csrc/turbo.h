/* What the C side of shardtool's libjpeg-turbo bridge shares with Rust (src/turbo/ffi.rs mirrors it).
 *
 * libjpeg reports an error by a call that must not return. Every function here therefore runs under one setjmp of its
 * own: a longjmp crosses libjpeg's frames and ours, never Rust's. */
#ifndef SHARDTOOL_TURBO_H
#define SHARDTOOL_TURBO_H

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Brings jpegint.h with it, whose entropy encoder write.c replaces. */
#define JPEG_INTERNALS
#include <jpeglib.h>
#include <jerror.h>

#define TURBO_COMPONENTS 3

enum turbo_status { TURBO_FINE = 0, TURBO_DAMAGED = 1, TURBO_UNSUPPORTED = 2 };
/* The last has no coefficients here, only pixels. */
enum turbo_colour { TURBO_GRAY = 0, TURBO_YCBCR = 1, TURBO_RGB = 2, TURBO_CMYK = 3 };
/* How much of a picture its file holds: TURBO_FAULTY files are read with a complaint, TURBO_CUT ones end early,
 * TURBO_ENDLESS ones lack nothing but their end marker. */
enum turbo_whole { TURBO_WHOLE = 0, TURBO_FAULTY = 1, TURBO_CUT = 2, TURBO_ENDLESS = 3 };

struct turbo_component {
    uint8_t h, v;
    uint16_t quantization[DCTSIZE2];
    /* Blocks that hold samples, and the distance between rows: the reader fills rows up to whole MCUs. */
    uint32_t blocks_wide, blocks_high;
    uint32_t stride, rows;
    /* stride * rows blocks; while encoding or writing, stride is blocks_wide and rows is blocks_high. */
    int16_t *blocks;
};

struct turbo_image {
    uint32_t width, height;
    uint8_t colour, progressive;
    uint8_t components;
    struct turbo_component component[TURBO_COMPONENTS];
};

/* libjpeg's error manager, first so that a pointer to it is a pointer to this. */
struct turbo_errors {
    struct jpeg_error_mgr manager;
    jmp_buf escape;
    int status;
    char message[JMSG_LENGTH_MAX];
    /* The first of a file's warnings; empty when there was none. */
    char warning[JMSG_LENGTH_MAX];
    /* Whether entropy-coded data ended before the blocks they should fill, and the file before its end marker. */
    int data_missing, end_missing;
};

struct jpeg_error_mgr *turbo_errors_init(struct turbo_errors *errors);
void turbo_errors_reset(struct turbo_errors *errors);
/* Leaves the running function with this reason. */
void turbo_fail(j_common_ptr info, int status, const char *reason);

struct turbo_reader;
struct turbo_writer;

#endif
