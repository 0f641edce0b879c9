//! Whole files: read below a cap, written all at once.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use crate::command::Result;

/// The bytes of a regular file of at most `most` bytes; its size is looked at before anything is read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    // asked before it is opened: opening a pipe waits for its other end
    if !fs::metadata(path).map_err(|e| failed(&e))?.is_file() {
        return Err(failed(&"not a regular file").into());
    }
    let file = File::open(path).map_err(|e| failed(&e))?;
    let size = file.metadata().map_err(|e| failed(&e))?.len();
    if size > most {
        return Err(failed(&format!("{size} bytes, at most {most} are allowed")).into());
    }
    let mut bytes = vec![];
    bytes.try_reserve_exact(size as usize).map_err(|e| failed(&e))?;
    file.take(most).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    Ok(bytes)
}

/// Where an output can go: a new file in a folder that exists, or an old one that is none of `inputs`.
pub fn target(path: &Path, inputs: &[&Path]) -> Result<PathBuf> {
    let refused = |why: &str| Err(format!("{}: {why}", path.display()).into());
    if let Ok(target) = path.canonicalize() {
        // a rename would replace a device file by a plain one
        if !target.is_file() {
            return refused("exists and is not a regular file");
        }
        if inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == target)) {
            return refused("is an input");
        }
        return Ok(target);
    }
    if path.file_name().is_none() {
        return refused("not the name of a file");
    }
    if !folder(path).is_dir() {
        return refused("its folder does not exist");
    }
    Ok(path.into())
}

/// Through a temporary file beside the target: another program sees the old file or the new one.
pub fn write(target: &Path, bytes: &[u8]) -> Result {
    let failed = |e: std::io::Error| format!("{}: {e}", target.display());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".evaluate-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as of any new file
    let mut file = builder.tempfile_in(folder(target)).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(target).map_err(|e| failed(e.error))?;
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
