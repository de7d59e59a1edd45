/* Reading: a JPEG file's header, then either its coefficients or its pixels. */
#include "turbo.h"

#include <stdlib.h>
#include <string.h>

/* No encoder writes a tenth as many; a file of thousands of empty scans would cost minutes. */
#define MAX_SCANS 200

/* Stands in for one of libjpeg's virtual block arrays: rows of the caller's memory. */
struct block_array {
    JBLOCKROW *rows;
    JDIMENSION count;
};

struct turbo_reader {
    struct jpeg_decompress_struct info;
    struct turbo_errors errors;
    struct jpeg_progress_mgr progress;
    const struct turbo_image *image;
    struct block_array arrays[TURBO_COMPONENTS];
    int requested;
    /* Whether a scan is missing, so that coefficients lack bits or are unknown. */
    int scans_missing;
};

static void limit_scans(j_common_ptr info) {
    if (((j_decompress_ptr)info)->input_scan_number > MAX_SCANS)
        turbo_fail(info, TURBO_DAMAGED, "more scans than any encoder writes");
}

void turbo_reader_free(struct turbo_reader *reader) {
    jpeg_destroy_decompress(&reader->info);
    free(reader);
}

/* NULL where there is no memory. */
struct turbo_reader *turbo_reader_new(void) {
    struct turbo_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return NULL;
    reader->info.err = turbo_errors_init(&reader->errors);
    reader->progress.progress_monitor = limit_scans;
    return reader;
}

const char *turbo_reader_message(const struct turbo_reader *reader) { return reader->errors.message; }
const char *turbo_reader_warning(const struct turbo_reader *reader) { return reader->errors.warning; }

/* Forgets the file, its tables above all: libjpeg would use them for a next file that has none of its own. */
static int end(struct turbo_reader *reader) {
    jpeg_destroy_decompress(&reader->info);
    return reader->errors.status;
}

/* How much of the picture the file that was read last holds. */
int turbo_reader_whole(const struct turbo_reader *reader) {
    const struct turbo_errors *errors = &reader->errors;
    /* An arithmetic decoder cannot tell the end of its data from zeros behind it. */
    int missing = errors->data_missing || reader->scans_missing || reader->info.arith_code;
    if (errors->end_missing)
        return missing ? TURBO_CUT : TURBO_ENDLESS;
    return errors->warning[0] ? TURBO_FAULTY : TURBO_WHOLE;
}

/* Notes which coefficients no scan has brought to their full precision. libjpeg does not complain about them. */
static void note_missing_scans(struct turbo_reader *reader) {
    const struct jpeg_decompress_struct *info = &reader->info;
    int missing = 0;
    for (int c = 0; c < info->num_components; c++) {
        if (info->comp_info[c].quant_table == NULL)
            missing = 1; /* in no scan at all */
        for (int i = 0; info->progressive_mode && info->coef_bits && i < DCTSIZE2; i++)
            missing |= info->coef_bits[c][i] != 0;
    }
    reader->scans_missing = missing;
    if (missing && reader->errors.warning[0] == 0)
        snprintf(reader->errors.warning, sizeof reader->errors.warning, "%s",
                 "scans are missing: coefficients are unknown or of less than their precision");
}

static JDIMENSION round_up(JDIMENSION blocks, int factor) { return (blocks + factor - 1) / factor * factor; }

static void describe(j_decompress_ptr info, struct turbo_image *image) {
    switch (info->jpeg_color_space) {
    case JCS_GRAYSCALE:
        image->colour = TURBO_GRAY;
        break;
    case JCS_YCbCr:
        image->colour = TURBO_YCBCR;
        break;
    case JCS_RGB:
        image->colour = TURBO_RGB;
        break;
    case JCS_CMYK:
    case JCS_YCCK:
        image->colour = TURBO_CMYK;
        break;
    default:
        turbo_fail((j_common_ptr)info, TURBO_UNSUPPORTED, "components of unknown colour");
    }
    image->width = info->image_width;
    image->height = info->image_height;
    image->progressive = info->progressive_mode != 0;
    image->components = image->colour == TURBO_CMYK ? 0 : info->num_components;
    for (int c = 0; c < image->components; c++) {
        const jpeg_component_info *from = &info->comp_info[c];
        struct turbo_component *to = &image->component[c];
        to->h = from->h_samp_factor;
        to->v = from->v_samp_factor;
        to->blocks_wide = from->width_in_blocks;
        to->blocks_high = from->height_in_blocks;
        to->stride = round_up(from->width_in_blocks, from->h_samp_factor);
        to->rows = round_up(from->height_in_blocks, from->v_samp_factor);
    }
}

/* Reads the header. After TURBO_FINE, and while `jpeg` stays where it is, one of the three functions below must
   follow. */
int turbo_read_header(struct turbo_reader *reader, const uint8_t *jpeg, size_t length, struct turbo_image *image) {
    turbo_errors_reset(&reader->errors);
    reader->scans_missing = 0;
    if (setjmp(reader->errors.escape))
        return end(reader);
    jpeg_create_decompress(&reader->info);
    reader->info.client_data = reader;
    reader->info.progress = &reader->progress;
    jpeg_mem_src(&reader->info, jpeg, length);
    jpeg_read_header(&reader->info, TRUE);
    describe(&reader->info, image);
    return TURBO_FINE;
}

void turbo_read_nothing(struct turbo_reader *reader) { end(reader); }

static jvirt_barray_ptr give_rows(j_common_ptr info, int pool, boolean zeroed, JDIMENSION wide, JDIMENSION high,
                                  JDIMENSION at_once) {
    struct turbo_reader *reader = info->client_data;
    (void)zeroed; /* the caller's memory is */
    (void)at_once;
    if (reader->requested >= reader->image->components)
        turbo_fail(info, TURBO_DAMAGED, "more coefficient arrays than components");
    const struct turbo_component *component = &reader->image->component[reader->requested];
    if (component->stride != wide || component->rows != high)
        turbo_fail(info, TURBO_DAMAGED, "a coefficient array of another size than announced");
    struct block_array *array = &reader->arrays[reader->requested++];
    array->count = high;
    array->rows = (*info->mem->alloc_large)(info, pool, high * sizeof *array->rows);
    for (JDIMENSION row = 0; row < high; row++)
        array->rows[row] = (JBLOCKROW)component->blocks + (size_t)row * wide;
    return (jvirt_barray_ptr)array;
}

static JBLOCKARRAY find_rows(j_common_ptr info, jvirt_barray_ptr which, JDIMENSION first, JDIMENSION count,
                             boolean writable) {
    const struct block_array *array = (const struct block_array *)which;
    (void)writable;
    if (first > array->count || count > array->count - first)
        turbo_fail(info, TURBO_DAMAGED, "access outside a coefficient array");
    return array->rows + first;
}

/* Reads the coefficients into the memory that `image` names, which must be zeroed, and the quantization tables.
 * libjpeg's own arrays would be allocated anew for each file and need copying. */
int turbo_read_coefficients(struct turbo_reader *reader, struct turbo_image *image) {
    j_decompress_ptr info = &reader->info;
    if (setjmp(reader->errors.escape))
        return end(reader);
    reader->image = image;
    reader->requested = 0;
    info->mem->request_virt_barray = give_rows;
    info->mem->access_virt_barray = find_rows;
    jpeg_read_coefficients(info);
    for (int c = 0; c < image->components; c++) {
        /* A component that no scan mentions has no table: its coefficients are all zero, and any table serves. */
        const JQUANT_TBL *table = info->comp_info[c].quant_table;
        for (int i = 0; i < DCTSIZE2; i++)
            image->component[c].quantization[i] = table ? table->quantval[i] : 1;
    }
    note_missing_scans(reader);
    return end(reader);
}

/* Inks as Adobe stores them, inverted, on white paper; Pillow's arithmetic. */
static void cmyk_to_rgb(const JSAMPLE *cmyk, uint8_t *rgb, JDIMENSION width) {
    for (JDIMENSION x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        for (int i = 0; i < 3; i++) {
            unsigned product = (255 - cmyk[i]) * cmyk[3] + 128;
            rgb[i] = cmyk[3] - (((product >> 8) + product) >> 8);
        }
    }
}

/* The columns that fancy upsampling looks at beyond a pixel's own. */
#define CONTEXT 2

/* Decodes a rectangle, which must lie inside the image, to rows of 3 * width bytes of RGB. */
int turbo_read_pixels(struct turbo_reader *reader, uint32_t x, uint32_t y, uint32_t width, uint32_t height,
                      uint8_t *pixels) {
    j_decompress_ptr info = &reader->info;
    if (setjmp(reader->errors.escape))
        return end(reader);
    const int cmyk = info->num_components == 4;
    info->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    info->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(info);
    JDIMENSION left = x < CONTEXT ? 0 : x - CONTEXT;
    JDIMENSION right = info->output_width - (x + width) < CONTEXT ? info->output_width : x + width + CONTEXT;
    JDIMENSION decoded = right - left;
    JSAMPARRAY row = NULL;
    if (width != info->output_width)
        jpeg_crop_scanline(info, &left, &decoded);
    if (cmyk || width != info->output_width)
        row = (*info->mem->alloc_sarray)((j_common_ptr)info, JPOOL_IMAGE, info->output_components * decoded, 1);
    if (y > 0)
        jpeg_skip_scanlines(info, y);
    for (uint32_t i = 0; i < height; i++, pixels += 3 * (size_t)width) {
        jpeg_read_scanlines(info, row ? row : &pixels, 1);
        if (cmyk)
            cmyk_to_rgb(row[0] + 4 * (size_t)(x - left), pixels, width);
        else if (row)
            memcpy(pixels, row[0] + 3 * (size_t)(x - left), 3 * (size_t)width);
    }
    note_missing_scans(reader);
    if (info->output_scanline == info->output_height)
        jpeg_finish_decompress(info); /* reads on to the end marker */
    return end(reader);
}
