//! The copy of a damaged file that stays when the file is mended: it is all that there is of what
//! cannot be read today.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How many copies of one file are kept.
const COPIES_MAX: u32 = 100;

/// Copies `file` to a name beside it that nothing has; the copy is on the medium then. An earlier
/// one stays: where its repair was cut short, the file itself may no longer be whole.
pub(super) fn keep_copy(file: &Path) -> io::Result<PathBuf> {
    for number in 0..COPIES_MAX {
        let mut copy = file.to_owned().into_os_string();
        copy.push(".damaged");
        if number > 0 {
            copy.push(format!("-{number}"));
        }
        let copy = PathBuf::from(copy);
        match File::options().write(true).create_new(true).mode(0o600).open(&copy) {
            Ok(kept) => {
                let written = write(file, kept);
                return written.inspect_err(|_| drop(std::fs::remove_file(&copy))).map(|()| copy);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many copies of it are kept already: remove the .damaged files"))
}

fn write(file: &Path, mut kept: File) -> io::Result<()> {
    io::copy(&mut File::open(file)?, &mut kept)?;
    kept.sync_all()?;
    let folder = file.parent().ok_or(ErrorKind::NotADirectory)?;
    File::open(folder)?.sync_all()
}
