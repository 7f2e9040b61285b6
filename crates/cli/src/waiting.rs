//! A spinner for what takes longer than a moment: on stderr, and only on a terminal.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

/// What is done within this time shows no spinner.
const MOMENT: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(100);

/// Waits for `work`; after a moment says what is being waited for.
pub(crate) async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    if let Ok(done) = timeout(MOMENT, &mut work).await {
        return done;
    }
    let _spinner = Spinner::show(what);
    work.await
}

/// Gone without a trace when dropped, also by Ctrl-C.
struct Spinner(ProgressBar);

impl Spinner {
    fn show(what: &str) -> Self {
        let bar = ProgressBar::new_spinner().with_message(crate::text::clean(what).into_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
