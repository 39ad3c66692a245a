//! `hark run`: the agent itself.
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use super::{ConfigArgs, EXIT_CONFIG, terminated};
use crate::{causes, config, pipeline};

/// Arguments of `hark run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Logs go to standard error; RUST_LOG sets their level (for example RUST_LOG=hark=debug). \
Exit codes: 0 stopped by a signal, 1 a stage failed, 2 the configuration has faults, 3 the store of the buffer hung (start it anew: nothing is lost).")]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs until a signal.
pub fn main(args: &RunArgs) -> ExitCode {
    start_logging();
    let config = match config::load_to_run(&args.config.config) {
        Ok(config) => config,
        Err(faults) => {
            error!("{faults}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    config::doubts(&config).iter().for_each(|doubt| warn!("{doubt}"));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("edge").enable_all().build() {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!(%problem, "failed to start the async runtime");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::select! {
            biased;
            ended = pipeline::run(config, stop.clone()) => ended,
            never = stop_on_signal(stop.clone()) => match never {},
        }
    });
    match ended {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            error!("{}", causes::chain(&failure));
            ExitCode::FAILURE
        }
    }
}

/// Asks for a stop at SIGINT and SIGTERM, then waits for ever: the pipeline decides when it has ended.
async fn stop_on_signal(stop: CancellationToken) -> std::convert::Infallible {
    if let Err(problem) = terminated().await {
        error!(%problem, "signals cannot be received; stop the agent with SIGKILL");
        std::future::pending().await
    }
    stop.cancel();
    std::future::pending().await
}

fn start_logging() {
    // What goes wrong in the store is told by Hark, with what it means and what to do.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sled=off"));
    let colour = std::env::var_os("NO_COLOR").is_none() && rustix::termios::isatty(std::io::stderr());
    // A second call finds a logger in place, which is as good.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_target(false).with_writer(std::io::stderr).try_init();
}
