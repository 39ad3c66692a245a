//! A real Mosquitto on loopback, with the settings that Hark ships.
use std::{
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Process, free_port, in_clone, wait_for};

const STARTS_WITHIN: Duration = Duration::from_secs(20);
const STOPS_WITHIN: Duration = Duration::from_secs(20);

/// Settings that name a place, a peer or a secret. A test replaces these and leaves all others of a shipped file in force.
const OF_THE_PLACE: [&str; 12] = [
    "listener",
    "cafile",
    "certfile",
    "keyfile",
    "tls_version",
    "allow_anonymous",
    "password_file",
    "acl_file",
    "persistence_location",
    "log_dest",
    "user",
    "pid_file",
];

/// Which settings a broker runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settings {
    /// `config/mosquitto/plant.conf`.
    Plant,
    /// `config/mosquitto/development.conf`.
    Development,
    /// Persistence only, all limits as Mosquitto has them: what a plant gets that does not read our page.
    Defaults,
    /// The same, for nobody but user `hark` with password `secret`.
    Password,
    /// Persistence, and no limit on messages in flight or waiting: what is measured then is not the broker's patience.
    Unlimited,
    /// A queue without an end; in flight no more than the agent remembers, which `Unlimited` does not keep to.
    LongQueue,
}

/// A broker with its store and its `mosquitto.log` in a directory of its own. Stopped when dropped.
#[derive(Debug)]
pub struct Mosquitto {
    process: Option<Process>,
    dir: PathBuf,
    port: u16,
}

impl Mosquitto {
    /// Starts a broker in `dir` (created if absent) on a free port and returns once it accepts connections.
    ///
    /// # Errors
    /// When Mosquitto is not installed, refuses its settings, or does not listen in time; with the end of its log.
    pub fn start(dir: &Path, settings: Settings) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
        let mut broker = Self { process: None, dir: dir.to_owned(), port: free_port()? };
        let shipped = match settings {
            Settings::Plant => shipped("plant.conf")?,
            Settings::Development => shipped("development.conf")?,
            Settings::Defaults | Settings::Password => "persistence true\n".to_owned(),
            Settings::LongQueue => "persistence true\nmax_inflight_messages 8192\nmax_queued_messages 0\nmax_queued_bytes 0\n".to_owned(),
            Settings::Unlimited => "persistence true\nmax_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\n".to_owned(),
        };
        let passwords = (settings == Settings::Password).then(|| password_file(dir)).transpose()?;
        std::fs::write(broker.config_file(), on_loopback(&shipped, dir, broker.port, passwords.as_deref()))
            .context("failed to write mosquitto.conf")?;
        broker.start_again()?;
        Ok(broker)
    }

    /// Its TCP port on loopback, the same across restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it in order: it writes its store first.
    ///
    /// # Errors
    /// When it does not run, or does not stop in time.
    pub fn stop(&mut self) -> Result<()> {
        self.take_process()?.stop(STOPS_WITHIN).map(drop)
    }

    /// Kills it without warning: what its store does not hold yet is lost, as in a power cut.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.take_process()?.kill()
    }

    /// Starts it again after [`Mosquitto::stop`] or [`Mosquitto::kill`], with its store and its port.
    ///
    /// # Errors
    /// As [`Mosquitto::start`]; also when it runs already.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the Mosquitto in {} runs already", self.dir.display());
        let (config_file, log) = (self.config_file().display().to_string(), self.dir.join("mosquitto.log"));
        let process = self.process.insert(Process::start("mosquitto", &program(), &["-c", &config_file], &[], &log)?);
        wait_for("Mosquitto to accept connections", STARTS_WITHIN, || {
            process.check_running()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok().map(drop))
        })
    }

    /// Stops it in order and starts it again.
    ///
    /// # Errors
    /// As [`Mosquitto::stop`] and [`Mosquitto::start_again`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// The running broker, to pause it or to read its pid.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("the Mosquitto in {} is stopped", self.dir.display()))
    }

    fn config_file(&self) -> PathBuf {
        self.dir.join("mosquitto.conf")
    }

    fn take_process(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("the Mosquitto in {} is stopped", self.dir.display()))
    }
}

/// Debian puts daemons where the path of an ordinary user does not reach.
fn program() -> PathBuf {
    let of_debian = Path::new("/usr/sbin/mosquitto");
    if of_debian.exists() { of_debian.to_owned() } else { PathBuf::from("mosquitto") }
}

fn shipped(name: &str) -> Result<String> {
    let path = in_clone("config/mosquitto").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

fn password_file(dir: &Path) -> Result<PathBuf> {
    let file = dir.join("passwords");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args(["hark", "secret"]).output();
    let made = made.context("failed to start mosquitto_passwd")?;
    ensure!(made.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&made.stderr));
    Ok(file)
}

fn on_loopback(shipped: &str, dir: &Path, port: u16, passwords: Option<&Path>) -> String {
    let is_of_the_place = |line: &&str| line.split_whitespace().next().is_some_and(|key| OF_THE_PLACE.contains(&key));
    let kept: String = shipped.lines().filter(|line| !is_of_the_place(line)).flat_map(|line| [line, "\n"]).collect();
    // The listener comes first: an option of listeners that stands before any, such as `max_connections`, opens port 1883 to the world as well.
    // Started by root, Mosquitto becomes another user, who may not write into the test's directory; for all others `user` has no effect.
    let place = format!("listener {port} 127.0.0.1\nuser root\nlog_dest stderr\npersistence_location {}/\n", dir.display());
    let users =
        passwords.map_or_else(|| "allow_anonymous true\n".to_owned(), |file| format!("allow_anonymous false\npassword_file {}\n", file.display()));
    place + &users + &kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_file_keeps_its_limits_and_changes_its_place() {
        let file = "# comment\nlistener 8883\npassword_file /etc/passwd\nmax_queued_bytes 7\n";
        let changed = on_loopback(file, Path::new("/tmp/x"), 1234, None);
        assert!(changed.starts_with("listener 1234 127.0.0.1\n") && changed.ends_with("# comment\nmax_queued_bytes 7\n"), "{changed}");
        assert!(changed.contains("\npersistence_location /tmp/x/\n"), "{changed}");
        assert!(!changed.contains("8883") && !changed.contains("passwd"), "{changed}");
    }

    #[test]
    fn the_shipped_files_are_there() {
        for name in ["plant.conf", "development.conf"] {
            assert!(shipped(name).expect("shipped").contains("persistence true"), "{name}");
        }
    }
}
