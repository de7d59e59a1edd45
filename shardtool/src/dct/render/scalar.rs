//! How a row of blocks is rendered, in portable code: the definition.

use super::row::Row;
use crate::dct::idct;

/// Renders one row of blocks.
pub(super) fn row(row: &Row<'_>, samples: &mut [u8]) {
    let (columns, rows) = (row.scale.columns, row.scale.rows);
    let mut next = [0; 8];
    let mut escapes = row.escapes.iter().peekable();
    for block in 0..row.blocks {
        let mut coefficients = [0i16; 64];
        for u in 0..columns {
            for v in 0..8 {
                if row.masks[u][block] >> v & 1 == 1 {
                    coefficients[8 * u + v] = i16::from(row.values[u][next[u]] as i8);
                    next[u] += 1;
                }
            }
        }
        while let Some(escape) = escapes.next_if(|escape| escape.block as usize == block) {
            let coefficient = &mut coefficients[usize::from(escape.place)];
            *coefficient = coefficient.wrapping_add(i16::from(escape.high) << 8);
        }
        coefficients[0] = row.dc[block];
        for (coefficient, factor) in coefficients.iter_mut().zip(row.factors.as_flattened()) {
            *coefficient = coefficient.wrapping_mul(*factor);
        }
        let square = idct::samples(&coefficients, columns, rows);
        for (y, line) in square.iter().enumerate().take(rows) {
            samples[y * row.stride + block * columns..][..columns]
                .copy_from_slice(&line[..columns]);
        }
    }
}
