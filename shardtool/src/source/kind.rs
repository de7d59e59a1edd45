//! What a file is, by its first bytes; and what its name says.

/// Bytes that [`Kind::of`] wants to see.
pub const HEAD: usize = 512;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image of a format that is read, by its name.
    Image(&'static str),
    /// An image or film of a format that is not read.
    Unread(&'static str),
    /// Something that holds other files.
    Archive(&'static str),
    /// Something else that is known.
    Other(&'static str),
    /// Nothing known.
    Unknown,
}

impl Kind {
    /// Tells what a file is from its first [`HEAD`] bytes, or all if there are fewer.
    pub fn of(head: &[u8]) -> Kind {
        use Kind::{Archive, Image, Other, Unread};
        let at = |offset: usize, text: &[u8]| {
            head.get(offset..)
                .is_some_and(|rest| rest.starts_with(text))
        };
        let starts = |text: &[u8]| at(0, text);
        if starts(&[0xff, 0xd8, 0xff]) {
            return Image("JPEG");
        }
        if starts(b"\x89PNG\r\n\x1a\n") {
            return Image("PNG");
        }
        if starts(b"RIFF") && at(8, b"WEBP") {
            return Image("WEBP");
        }
        if starts(b"GIF87a") || starts(b"GIF89a") {
            return Image("GIF");
        }
        if starts(b"II*\0") || starts(b"MM\0*") || starts(b"II+\0") || starts(b"MM\0+") {
            return Image("TIFF");
        }
        if starts(b"BM")
            && head.len() > 18
            && head[14..18].iter().any(|&byte| byte != 0)
            && head[17] == 0
        {
            return Image("BMP");
        }
        if head.len() > 2
            && head[0] == b'P'
            && (b'1'..=b'7').contains(&head[1])
            && head[2].is_ascii_whitespace()
        {
            return Image("PNM");
        }
        if starts(b"\0\0\x01\0") && head.get(4).is_some_and(|&count| count > 0) && at(5, b"\0") {
            return Unread("ICO");
        }
        if at(4, b"ftyp") {
            let brands = &head[8..head.len().min(64)];
            let has = |brand: &[u8]| brands.chunks(4).any(|chunk| chunk == brand);
            return if has(b"avif") || has(b"avis") {
                Unread("AVIF")
            } else if [b"heic", b"heix", b"hevc", b"mif1", b"heif", b"msf1"]
                .iter()
                .any(|brand| has(&brand[..]))
            {
                Unread("HEIC")
            } else {
                Unread("MP4 or QuickTime film")
            };
        }
        if starts(b"\0\0\0\x0cJXL \r\n\x87\n") || starts(&[0xff, 0x0a]) {
            return Image("JPEG XL");
        }
        if starts(b"\0\0\0\x0cjP  \r\n\x87\n") || starts(&[0xff, 0x4f, 0xff, 0x51]) {
            return Unread("JPEG 2000");
        }
        if starts(b"8BPS") {
            return Unread("Photoshop");
        }
        if starts(b"\x76\x2f\x31\x01") {
            return Unread("OpenEXR");
        }
        if starts(b"#?RADIANCE") {
            return Unread("Radiance HDR");
        }
        if starts(b"DDS ") {
            return Unread("DDS");
        }
        if starts(b"qoif") {
            return Unread("QOI");
        }
        if starts(b"farbfeld") {
            return Unread("farbfeld");
        }
        if starts(b"RIFF") && at(8, b"AVI ") {
            return Unread("AVI film");
        }
        if starts(b"\x1a\x45\xdf\xa3") {
            return Unread("Matroska or WebM film");
        }
        if at(128, b"DICM") {
            return Unread("DICOM");
        }
        if starts(b"SIMPLE  =") {
            return Unread("FITS");
        }
        if starts(b"\x93NUMPY") {
            return Other("NumPy array");
        }
        if starts(b"\x89HDF\r\n\x1a\n") {
            return Archive("HDF5");
        }
        if at(257, b"ustar") {
            return Archive("tar");
        }
        if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
            return Archive("zip");
        }
        if starts(&[0x1f, 0x8b]) {
            return Archive("gzip");
        }
        if starts(b"BZh") {
            return Archive("bzip2");
        }
        if starts(b"\xfd7zXZ\0") {
            return Archive("xz");
        }
        if starts(b"\x28\xb5\x2f\xfd") {
            return Archive("zstd");
        }
        if starts(b"7z\xbc\xaf\x27\x1c") {
            return Archive("7z");
        }
        if starts(b"Rar!\x1a\x07") {
            return Archive("RAR");
        }
        if starts(b"PAR1") {
            return Archive("parquet");
        }
        if starts(b"ARROW1") {
            return Archive("Arrow");
        }
        if starts(b"%PDF-") {
            return Unread("PDF");
        }
        if starts(b"version https://git-lfs.github.com/spec/") {
            return Unread("Git LFS pointer (run 'git lfs pull')");
        }
        text(head)
    }

    /// Says what a file that cannot be kept is.
    pub fn refusal(self) -> String {
        match self {
            Kind::Image(name) => format!("{name} that cannot be read"),
            Kind::Unread(name) => format!("not read: {name}"),
            Kind::Archive(name) => format!("not an image: {name} archive"),
            Kind::Other(name) => format!("not an image: {name}"),
            Kind::Unknown => "not an image of a known type".to_owned(),
        }
    }
}

/// Tells kinds of text.
fn text(head: &[u8]) -> Kind {
    let shown = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    let begins = |word: &str| {
        shown
            .get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
    };
    if begins("<svg") {
        return Kind::Unread("SVG");
    }
    if begins("<!doctype html") || begins("<html") || begins("<head") || begins("<body") {
        return Kind::Other("HTML page");
    }
    if begins("<?xml") {
        let holds_svg = shown.windows(4).any(|window| window == b"<svg");
        return if holds_svg {
            Kind::Unread("SVG")
        } else {
            Kind::Other("XML")
        };
    }
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(), // cut in the middle of a character
    };
    let printable = head
        .iter()
        .all(|&byte| byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b));
    if valid && printable && !head.is_empty() {
        return Kind::Other("text");
    }
    Kind::Unknown
}

/// Extensions of images, and the name of the kind that each says.
const EXTENSIONS: [(&str, &str); 33] = [
    ("jpg", "JPEG"),
    ("jpeg", "JPEG"),
    ("jpe", "JPEG"),
    ("jfif", "JPEG"),
    ("jif", "JPEG"),
    ("pjpeg", "JPEG"),
    ("mpo", "JPEG"),
    ("png", "PNG"),
    ("apng", "PNG"),
    ("webp", "WEBP"),
    ("gif", "GIF"),
    ("tif", "TIFF"),
    ("tiff", "TIFF"),
    ("btf", "TIFF"),
    ("bmp", "BMP"),
    ("dib", "BMP"),
    ("ppm", "PNM"),
    ("pgm", "PNM"),
    ("pbm", "PNM"),
    ("pnm", "PNM"),
    ("ico", "ICO"),
    ("avif", "AVIF"),
    ("heic", "HEIC"),
    ("heif", "HEIC"),
    ("jxl", "JPEG XL"),
    ("jp2", "JPEG 2000"),
    ("j2k", "JPEG 2000"),
    ("jpx", "JPEG 2000"),
    ("svg", "SVG"),
    ("tga", "TGA"),
    ("psd", "Photoshop"),
    ("exr", "OpenEXR"),
    ("hdr", "Radiance HDR"),
];

/// Returns the kind of image that a file's name says, if it says one.
pub fn named(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (_, extension) = name.rsplit_once('.')?;
    let found = EXTENSIONS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(extension));
    found.map(|(_, kind)| *kind)
}

/// Names of files and folders that systems and tools leave behind, whose content is never meant.
pub fn is_junk(name: &str) -> bool {
    const JUNK: [&str; 16] = [
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "@eadir",
        "#recycle",
        "@recycle",
        "@tmp",
        "__macosx",
        "lost+found",
        "$recycle.bin",
        "system volume information",
        "icon\r",
        "network trash folder",
        "temporary items",
        "__pycache__",
        "zbthumbnail.info",
    ];
    name.starts_with('.') || JUNK.iter().any(|junk| name.eq_ignore_ascii_case(junk))
}
