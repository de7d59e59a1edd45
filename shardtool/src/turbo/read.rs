//! JPEG files to coefficients or pixels.

use super::{Error, ffi};
use crate::codec::Region;
use crate::dct::coefficients::{BLOCK, Coefficients, Component};

/// What was noticed while reading a file's coefficients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Whether the file is progressive.
    pub progressive: bool,
    /// What is wrong with a file that was read all the same.
    pub flaw: Option<Flaw>,
}

/// What is wrong with a file that libjpeg read all the same: missing data count as zero, surplus is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// libjpeg's first complaint.
    pub complaint: String,
    /// Whether the file ends before all of its picture is there. One that lacks nothing but its end marker does not.
    pub cut: bool,
    /// Whether it lacks nothing but its end marker.
    pub endless: bool,
}

/// Reads coefficients; keep one per thread.
pub struct Reader {
    handle: Handle,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new()
    }
}

impl Reader {
    /// Makes a reader.
    pub fn new() -> Reader {
        Reader {
            handle: Handle::new(),
        }
    }

    /// Reads a file's coefficients and tables, whatever its process (baseline, extended, progressive) and sampling,
    /// into `into`, whose memory is used again. After an error `into` holds nothing of use.
    ///
    /// libjpeg's usual leniency: a file that ends early or has faulty data is filled up, with a warning.
    ///
    /// # Errors
    /// libjpeg's complaint, or that the file is of a kind that the codec has no place for.
    pub fn read_coefficients(
        &mut self,
        jpeg: &[u8],
        into: &mut Coefficients,
    ) -> Result<Reading, Error> {
        let mut image = self.handle.header(jpeg)?;
        let Some(colour) = image.colour() else {
            self.handle.read_nothing();
            return Err(Error::Unsupported("CMYK colours".to_owned()));
        };
        into.width = image.width;
        into.height = image.height;
        into.colour = colour;
        let count = into.colour.planes();
        into.components.truncate(count);
        into.components.resize_with(count, || Component {
            h: 1,
            v: 1,
            quantization: [1; BLOCK],
            blocks_wide: 0,
            blocks_high: 0,
            blocks: Vec::new(),
        });
        for (component, described) in into.components.iter_mut().zip(&mut image.component) {
            component.blocks.clear();
            let blocks = described.stride as usize * described.rows as usize;
            component.blocks.resize(blocks * BLOCK, 0);
            described.blocks = component.blocks.as_mut_ptr();
        }
        // SAFETY: the header was read from `jpeg`, which is still borrowed. Each described component's `blocks` points
        // to `stride * rows` zeroed blocks of its own, which nothing else touches during the call; the header promises
        // as many components as its colour has.
        let status = unsafe { ffi::turbo_read_coefficients(self.handle.0, &mut image) };
        self.handle.check(status)?;
        for (component, described) in into.components.iter_mut().zip(&image.component) {
            component.h = described.h;
            component.v = described.v;
            component.quantization = described.quantization;
            component.blocks_wide = described.blocks_wide as usize;
            component.blocks_high = described.blocks_high as usize;
            close_gaps(component, described.stride as usize);
        }
        Ok(Reading {
            progressive: image.progressive != 0,
            flaw: self.handle.flaw(),
        })
    }
}

/// Drops the blocks that fill rows and columns up to whole MCUs.
fn close_gaps(component: &mut Component, stride: usize) {
    let (wide, high) = (component.blocks_wide * BLOCK, component.blocks_high);
    let stride = stride * BLOCK;
    if stride != wide {
        for row in 1..high {
            component
                .blocks
                .copy_within(row * stride..row * stride + wide, row * wide);
        }
    }
    component.blocks.truncate(wide * high);
}

/// Decodes to RGB8 as Pillow does (accurate integer inverse DCT, fancy upsampling, CMYK as Adobe writes it); keep one
/// per thread.
pub struct Decoder {
    handle: Handle,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder::new()
    }
}

impl Decoder {
    /// Makes a decoder.
    pub fn new() -> Decoder {
        Decoder {
            handle: Handle::new(),
        }
    }

    /// Reads the width and height alone.
    ///
    /// # Errors
    /// libjpeg's complaint.
    pub fn size(&mut self, jpeg: &[u8]) -> Result<(u32, u32), Error> {
        let image = self.handle.header(jpeg)?;
        self.handle.read_nothing();
        Ok((image.width, image.height))
    }

    /// Returns what is wrong with the file that was decoded last, if it was decoded whole.
    pub fn flaw(&self) -> Option<Flaw> {
        self.handle.flaw()
    }

    /// Decodes the whole image, rows without gaps, and gives its width and height.
    ///
    /// # Errors
    /// libjpeg's complaint.
    pub fn decode_full(&mut self, jpeg: &[u8], out: &mut Vec<u8>) -> Result<(u32, u32), Error> {
        let image = self.handle.header(jpeg)?;
        let region = Region {
            x: 0,
            y: 0,
            width: image.width,
            height: image.height,
        };
        self.decode(region, out)?;
        Ok((image.width, image.height))
    }

    /// Decodes a rectangle, to the very pixels that [`Decoder::decode_full`] has there, without the columns of MCUs
    /// beside it, without the inverse DCT of the rows above it, and stopping after its last row.
    ///
    /// # Errors
    /// libjpeg's complaint.
    pub fn decode_partial(
        &mut self,
        jpeg: &[u8],
        region: Region,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let image = self.handle.header(jpeg)?;
        if !region.is_inside(image.width, image.height) {
            self.handle.read_nothing();
            let size = format!("{}x{}", image.width, image.height);
            return Err(Error::Damaged(format!("{region:?} is not inside {size}")));
        }
        self.decode(region, out)
    }

    /// Decodes a region of the image whose header was read last, which lies inside it.
    fn decode(&mut self, region: Region, out: &mut Vec<u8>) -> Result<(), Error> {
        let Region {
            x,
            y,
            width,
            height,
        } = region;
        out.resize(3 * width as usize * height as usize, 0);
        // SAFETY: the callers read the header from bytes that they still borrow, and the region lies inside the image.
        // `out` holds the region's rows of 3 bytes a pixel.
        let status =
            unsafe { ffi::turbo_read_pixels(self.handle.0, x, y, width, height, out.as_mut_ptr()) };
        self.handle.check(status)
    }
}

/// A `struct turbo_reader` of our own.
struct Handle(*mut ffi::Reader);

// SAFETY: libjpeg's objects are plain memory that belongs to no thread; `&mut` keeps two threads from using one at
// once.
unsafe impl Send for Handle {}

impl Handle {
    fn new() -> Handle {
        // SAFETY: takes nothing; null means that there was no memory.
        let handle = unsafe { ffi::turbo_reader_new() };
        assert!(!handle.is_null(), "no memory for a JPEG reader");
        Handle(handle)
    }

    /// Starts reading a file. Where this gives `Ok`, `jpeg` must outlive the call that reads the rest.
    fn header(&mut self, jpeg: &[u8]) -> Result<ffi::Image, Error> {
        let mut image = ffi::Image::empty();
        // SAFETY: `jpeg` is as long as said, `image` is ours.
        let status =
            unsafe { ffi::turbo_read_header(self.0, jpeg.as_ptr(), jpeg.len(), &mut image) };
        self.check(status)?;
        let (width, height) = (image.width, image.height);
        if !crate::format::fits(width, height) {
            self.read_nothing();
            let reason = format!("{width}x{height} pixels, more than an image may have");
            return Err(Error::Damaged(reason));
        }
        Ok(image)
    }

    fn read_nothing(&mut self) {
        // SAFETY: forgets the file whose header was read; touches no memory of ours.
        unsafe { ffi::turbo_read_nothing(self.0) }
    }

    fn check(&self, status: i32) -> Result<(), Error> {
        // SAFETY: the message is a zero-terminated string inside the reader.
        ffi::check(status, || unsafe {
            ffi::text(ffi::turbo_reader_message(self.0))
        })
    }

    fn flaw(&self) -> Option<Flaw> {
        // SAFETY: as for `check`; the other call only looks at the reader.
        let (complaint, whole) = unsafe {
            let complaint = ffi::text(ffi::turbo_reader_warning(self.0));
            (complaint, ffi::turbo_reader_whole(self.0))
        };
        (whole != 0).then_some(Flaw {
            complaint,
            cut: whole == 2,
            endless: whole == 3,
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `turbo_reader_new`, freed once.
        unsafe { ffi::turbo_reader_free(self.0) }
    }
}
