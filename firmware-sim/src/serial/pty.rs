//! A pseudo terminal that looks like a serial port under a stable name.
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, ioctl_tiocnxcl, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;

/// Our end of the pseudo terminal. It survives readers that come and go, because it holds the other end open itself.
#[derive(Debug)]
pub struct Pty {
    near: AsyncFd<OwnedFd>,
    far: OwnedFd,
    device: PathBuf,
    link: PathBuf,
}

impl Pty {
    /// Opens a raw pseudo terminal and points `link` at it, in place of an older link. Needs a runtime.
    /// Fails if something other than a link has that name.
    pub fn open(link: &Path) -> io::Result<Self> {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&near)?;
        unlockpt(&near)?;
        let device = PathBuf::from(std::ffi::OsString::from_vec(ptsname(&near, Vec::new())?.into_bytes()));
        let far = open(&device, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let mut attributes = tcgetattr(&far)?;
        attributes.make_raw();
        tcsetattr(&far, OptionalActions::Now, &attributes)?;
        fcntl_setfl(&near, fcntl_getfl(&near)? | OFlags::NONBLOCK)?;
        point(link, &device)?;
        #[expect(deprecated, reason = "the replacement is unsafe to call; what it asks for holds, since an OwnedFd stays open and the same")]
        let near = AsyncFd::new(near)?;
        Ok(Self { near, far, device, link: link.to_owned() })
    }

    /// Bytes from the reader's side. May be cancelled.
    pub async fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.near.readable().await?;
            if let Ok(result) = ready.try_io(|near| Ok(rustix::io::read(near, &mut *bytes)?)) {
                return result;
            }
        }
    }

    /// Bytes to the reader's side; waits while the terminal's buffer (4 kB) is full, as with flow control. May be cancelled.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.near.writable().await?;
            if let Ok(result) = ready.try_io(|near| Ok(rustix::io::write(near, bytes)?)) {
                return result;
            }
        }
    }

    /// Bytes that no reader has taken yet.
    pub fn unread(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.far)?)
    }

    /// Takes an exclusive lock away that a killed reader left. A real port's lock ends with its last holder; here we hold the port too.
    pub fn unlock(&self) -> io::Result<()> {
        Ok(ioctl_tiocnxcl(&self.far)?)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // A newer simulator may own the name by now.
        if fs::read_link(&self.link).is_ok_and(|target| target == self.device) {
            let _nothing_depends_on_it = fs::remove_file(&self.link);
        }
    }
}

/// Makes `link` point at `device`, in one step for whoever opens it meanwhile.
fn point(link: &Path, device: &Path) -> io::Result<()> {
    match fs::symlink_metadata(link) {
        Ok(existing) if !existing.is_symlink() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{}` exists and is not a link", link.display())));
        }
        _ => {}
    }
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = link.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    symlink(device, &name)?;
    fs::rename(&name, link)
}
