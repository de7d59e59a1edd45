/* Errors and warnings: kept as text, errors leave through longjmp, nothing is printed. */
#include "turbo.h"

#include <string.h>

int jsimd_can_idct_islow(void);

/* Whether libjpeg's vector code was compiled in and runs here. */
int turbo_simd(void) { return jsimd_can_idct_islow() != 0; }

static void leave(j_common_ptr info) {
    struct turbo_errors *errors = (struct turbo_errors *)info->err;
    (*info->err->format_message)(info, errors->message);
    switch (info->err->msg_code) {
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
        errors->status = TURBO_UNSUPPORTED;
        break;
    default:
        errors->status = TURBO_DAMAGED;
    }
    longjmp(errors->escape, 1);
}

static void note(j_common_ptr info, int level) {
    struct turbo_errors *errors = (struct turbo_errors *)info->err;
    if (level >= 0)
        return;
    errors->data_missing |= info->err->msg_code == JWRN_HIT_MARKER;
    errors->end_missing |= info->err->msg_code == JWRN_JPEG_EOF;
    if (info->err->num_warnings++ == 0)
        (*info->err->format_message)(info, errors->warning);
}

static void print_nothing(j_common_ptr info) { (void)info; }

struct jpeg_error_mgr *turbo_errors_init(struct turbo_errors *errors) {
    jpeg_std_error(&errors->manager);
    errors->manager.error_exit = leave;
    errors->manager.emit_message = note;
    errors->manager.output_message = print_nothing;
    turbo_errors_reset(errors);
    return &errors->manager;
}

void turbo_errors_reset(struct turbo_errors *errors) {
    errors->status = TURBO_FINE;
    errors->message[0] = errors->warning[0] = 0;
    errors->data_missing = errors->end_missing = 0;
    errors->manager.num_warnings = 0;
}

void turbo_fail(j_common_ptr info, int status, const char *reason) {
    struct turbo_errors *errors = (struct turbo_errors *)info->err;
    snprintf(errors->message, sizeof errors->message, "%s", reason);
    errors->status = status;
    longjmp(errors->escape, 1);
}
