//! The progress of long work, on standard error if it is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Makes a bar with a known end.
pub(crate) fn bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    with_style(bar, "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len} {eta:.dim}")
        .with_message(what)
}

/// Makes a bar for the bytes of a file.
pub(crate) fn bytes(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    with_style(bar, "{msg} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {eta:.dim}")
        .with_message(what)
}

/// Makes a spinner for work without a known end. It turns by itself.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.enable_steady_tick(Duration::from_millis(120));
    with_style(bar, "{spinner:.cyan} {msg}").with_message(what)
}

fn with_style(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("━╸─")),
        // A wrong template changes the look of the bar only.
        Err(_) => bar,
    }
}
