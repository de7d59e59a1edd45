/* Writing: pixels to coefficients, and coefficients to a JPEG file. */
#include "turbo.h"

#include <stdlib.h>
#include <string.h>

struct turbo_writer {
    struct jpeg_compress_struct info;
    struct turbo_errors errors;
    struct jpeg_destination_mgr destination;
    uint8_t *buffer;
    size_t capacity, length;
    const struct turbo_image *image;
    JDIMENSION mcu_column, mcu_row;
};

static void begin_output(j_compress_ptr info) {
    struct turbo_writer *writer = info->client_data;
    writer->destination.next_output_byte = writer->buffer;
    writer->destination.free_in_buffer = writer->capacity;
}

/* Called when the buffer is full to its end. */
static boolean grow_output(j_compress_ptr info) {
    struct turbo_writer *writer = info->client_data;
    size_t capacity = 2 * writer->capacity;
    uint8_t *buffer = realloc(writer->buffer, capacity);
    if (buffer == NULL)
        turbo_fail((j_common_ptr)info, TURBO_DAMAGED, "out of memory");
    writer->destination.next_output_byte = buffer + writer->capacity;
    writer->destination.free_in_buffer = capacity - writer->capacity;
    writer->buffer = buffer;
    writer->capacity = capacity;
    return TRUE;
}

static void end_output(j_compress_ptr info) {
    struct turbo_writer *writer = info->client_data;
    writer->length = writer->capacity - writer->destination.free_in_buffer;
}

static int create(struct turbo_writer *writer) {
    writer->info.err = turbo_errors_init(&writer->errors);
    writer->info.client_data = writer;
    if (setjmp(writer->errors.escape))
        return writer->errors.status;
    jpeg_create_compress(&writer->info);
    writer->capacity = 1 << 16;
    writer->buffer = malloc(writer->capacity);
    writer->destination.init_destination = begin_output;
    writer->destination.empty_output_buffer = grow_output;
    writer->destination.term_destination = end_output;
    writer->info.dest = &writer->destination;
    return writer->buffer != NULL ? TURBO_FINE : TURBO_DAMAGED;
}

void turbo_writer_free(struct turbo_writer *writer) {
    jpeg_destroy_compress(&writer->info);
    free(writer->buffer);
    free(writer);
}

/* NULL where there is no memory. */
struct turbo_writer *turbo_writer_new(void) {
    struct turbo_writer *writer = calloc(1, sizeof *writer);
    if (writer != NULL && create(writer) != TURBO_FINE) {
        turbo_writer_free(writer);
        return NULL;
    }
    return writer;
}

const char *turbo_writer_message(const struct turbo_writer *writer) { return writer->errors.message; }

static int end(struct turbo_writer *writer) {
    jpeg_abort_compress(&writer->info);
    return writer->errors.status;
}

/* Plain libjpeg behaviour: without this the library chooses tables, scans and coefficients of its own. */
static void set_defaults(j_compress_ptr info, const struct turbo_image *image, J_COLOR_SPACE from, J_COLOR_SPACE to) {
    info->image_width = image->width;
    info->image_height = image->height;
    info->input_components = image->components;
    info->in_color_space = from;
    jpeg_c_set_int_param(info, JINT_COMPRESS_PROFILE, JCP_FASTEST);
    jpeg_set_defaults(info);
    jpeg_set_colorspace(info, to);
    info->dct_method = JDCT_ISLOW;
    for (int c = 0; c < image->components; c++) {
        info->comp_info[c].h_samp_factor = image->component[c].h;
        info->comp_info[c].v_samp_factor = image->component[c].v;
    }
}

/* Takes the place of the Huffman encoder: the blocks of one MCU go to the caller's memory, those beyond the image
   nowhere. */
static boolean keep_mcu(j_compress_ptr info, JBLOCKROW *mcu) {
    struct turbo_writer *writer = info->client_data;
    for (int c = 0; c < info->comps_in_scan; c++) {
        const jpeg_component_info *from = info->cur_comp_info[c];
        const struct turbo_component *to = &writer->image->component[from->component_index];
        for (int v = 0; v < from->MCU_height; v++) {
            for (int h = 0; h < from->MCU_width; h++, mcu++) {
                size_t column = (size_t)writer->mcu_column * from->MCU_width + h;
                size_t row = (size_t)writer->mcu_row * from->MCU_height + v;
                if (column < to->blocks_wide && row < to->blocks_high)
                    memcpy(to->blocks + (row * to->stride + column) * DCTSIZE2, *mcu, sizeof(JBLOCK));
            }
        }
    }
    if (++writer->mcu_column == info->MCUs_per_row) {
        writer->mcu_column = 0;
        writer->mcu_row++;
    }
    return TRUE;
}

/* Transforms and quantizes gray or RGB pixels, rows without gaps, into the memory that `image` names, sampled as it
   says. */
int turbo_encode(struct turbo_writer *writer, const uint8_t *pixels, int quality, struct turbo_image *image) {
    j_compress_ptr info = &writer->info;
    turbo_errors_reset(&writer->errors);
    if (setjmp(writer->errors.escape))
        return end(writer);
    int gray = image->colour == TURBO_GRAY;
    set_defaults(info, image, gray ? JCS_GRAYSCALE : JCS_RGB, gray ? JCS_GRAYSCALE : JCS_YCbCr);
    jpeg_set_quality(info, quality, TRUE);
    for (int c = 0; c < image->components; c++)
        memcpy(image->component[c].quantization, info->quant_tbl_ptrs[info->comp_info[c].quant_tbl_no]->quantval,
               sizeof image->component[c].quantization);
    writer->image = image;
    writer->mcu_column = writer->mcu_row = 0;
    jpeg_start_compress(info, TRUE);
    info->entropy->encode_mcu = keep_mcu;
    while (info->next_scanline < info->image_height) {
        JSAMPROW row = (JSAMPROW)pixels + (size_t)info->next_scanline * image->width * image->components;
        jpeg_write_scanlines(info, &row, 1);
    }
    if (writer->mcu_column != 0 || writer->mcu_row != info->total_iMCU_rows)
        turbo_fail((j_common_ptr)info, TURBO_DAMAGED, "fewer blocks than the image has");
    return end(writer);
}

/* Gives each component the slot of its table, filling a new one unless an earlier component has the same table. */
static void set_tables(j_compress_ptr info, const struct turbo_image *image) {
    int slots = 0;
    for (int c = 0; c < image->components; c++) {
        const uint16_t *table = image->component[c].quantization;
        int slot = 0;
        while (slot < slots && memcmp(info->quant_tbl_ptrs[slot]->quantval, table, sizeof(uint16_t) * DCTSIZE2) != 0)
            slot++;
        if (slot == slots) {
            if (info->quant_tbl_ptrs[slot] == NULL)
                info->quant_tbl_ptrs[slot] = jpeg_alloc_quant_table((j_common_ptr)info);
            memcpy(info->quant_tbl_ptrs[slot]->quantval, table, sizeof(uint16_t) * DCTSIZE2);
            info->quant_tbl_ptrs[slot]->sent_table = FALSE;
            slots++;
        }
        info->comp_info[c].quant_tbl_no = slot;
    }
}

/* Writes a sequential JPEG file of the image's coefficients and tables. */
int turbo_write(struct turbo_writer *writer, const struct turbo_image *image, const uint8_t **jpeg, size_t *length) {
    static const J_COLOR_SPACE spaces[] = {JCS_GRAYSCALE, JCS_YCbCr, JCS_RGB};
    j_compress_ptr info = &writer->info;
    jpeg_scan_info scans[TURBO_COMPONENTS] = {{0}};
    jvirt_barray_ptr arrays[TURBO_COMPONENTS];
    turbo_errors_reset(&writer->errors);
    if (setjmp(writer->errors.escape))
        return end(writer);
    set_defaults(info, image, spaces[image->colour], spaces[image->colour]);
    set_tables(info, image);
    info->optimize_coding = TRUE;
    int blocks_in_mcu = 0;
    for (int c = 0; c < image->components; c++) {
        const struct turbo_component *component = &image->component[c];
        blocks_in_mcu += component->h * component->v;
        scans[c].comps_in_scan = 1;
        scans[c].component_index[0] = c;
        scans[c].Se = DCTSIZE2 - 1;
        JDIMENSION rows = (component->blocks_high + component->v - 1) / component->v * component->v;
        arrays[c] = (*info->mem->request_virt_barray)((j_common_ptr)info, JPOOL_IMAGE, TRUE,
                                                      component->blocks_wide, rows,
                                                      component->v);
    }
    /* So many do not fit into one MCU: such files have a scan for each component. */
    if (image->components > 1 && blocks_in_mcu > C_MAX_BLOCKS_IN_MCU) {
        info->scan_info = scans;
        info->num_scans = image->components;
    }
    jpeg_write_coefficients(info, arrays);
    for (int c = 0; c < image->components; c++) {
        const struct turbo_component *from = &image->component[c];
        if (info->comp_info[c].width_in_blocks != from->blocks_wide ||
            info->comp_info[c].height_in_blocks != from->blocks_high)
            turbo_fail((j_common_ptr)info, TURBO_DAMAGED, "another number of blocks than the image's size asks for");
        for (JDIMENSION row = 0; row < from->blocks_high; row++) {
            JBLOCKARRAY to = (*info->mem->access_virt_barray)((j_common_ptr)info, arrays[c], row, 1, TRUE);
            memcpy(to[0], from->blocks + (size_t)row * from->stride * DCTSIZE2,
                   (size_t)from->blocks_wide * sizeof(JBLOCK));
        }
    }
    jpeg_finish_compress(info);
    *jpeg = writer->buffer;
    *length = writer->length;
    return TURBO_FINE;
}
