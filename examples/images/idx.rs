//! IDX files, plain or gzipped: the format of MNIST and of the data sets that take its place. Two zero bytes, the kind of a
//! value, the number of dimensions, each dimension in four bytes (the highest first), then the values.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use flate2::read::GzDecoder;

use crate::common::Result;

/// The kind that is read: values of one byte without a sign.
const BYTES: u8 = 8;

/// More than any file of this kind has: a wrong length is found before room is made for it.
const MOST: u64 = 1 << 31;

/// The content of a file.
#[derive(Debug, PartialEq)]
pub struct Idx {
    /// The dimensions, the slowest first.
    pub lengths: Vec<usize>,
    pub values: Vec<u8>,
}

/// Reads a file; one whose name ends in .gz is unpacked.
pub fn read(path: &Path) -> Result<Idx> {
    let open = || -> Result<Idx> {
        let file = BufReader::new(File::open(path)?);
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        if packed { parse(GzDecoder::new(file)) } else { parse(file) }
    };
    open().map_err(|why| format!("{}: {why}", path.display()).into())
}

/// The content of an IDX file.
pub fn parse(mut file: impl Read) -> Result<Idx> {
    let mut bytes = |what: &str| -> Result<[u8; 4]> {
        let mut four = [0; 4];
        file.read_exact(&mut four).map_err(|why| format!("no IDX file, {what} is missing ({why})"))?;
        Ok(four)
    };
    let [zero, nought, kind, rank] = bytes("its header")?;
    if (zero, nought) != (0, 0) || rank == 0 {
        return Err("no IDX file: it does not begin with two zero bytes, a kind and a number of dimensions".into());
    }
    if kind != BYTES {
        return Err(format!("an IDX file with values of kind {kind:#04x}, expected bytes ({BYTES:#04x})").into());
    }
    let mut lengths = vec![];
    for place in 1..=rank {
        lengths.push(u32::from_be_bytes(bytes(&format!("dimension {place} of {rank}"))?) as usize);
    }
    let count = lengths.iter().try_fold(1_u64, |all, &length| all.checked_mul(length as u64));
    let Some(count) = count.filter(|&count| count < MOST) else {
        return Err(format!("an IDX file of {lengths:?} values, more than can be read").into());
    };
    let mut values = vec![];
    // one more than there should be shows whether there are more
    file.take(count + 1).read_to_end(&mut values)?;
    match values.len() as u64 {
        found if found < count => Err(format!("ends after {found} of {count} values").into()),
        found if found > count => Err(format!("has more than its {count} values").into()),
        _ => Ok(Idx { lengths, values }),
    }
}
