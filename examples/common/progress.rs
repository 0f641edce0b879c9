//! How far the work is.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal, elsewhere a line per part.
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
}

impl Progress {
    pub fn new(length: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}  ({eta} left)");
        let bar = ProgressBar::new(length as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, lines: !io::stderr().is_terminal() }
    }

    /// One of `length` is done.
    pub fn advance(&self, message: impl FnOnce() -> String) {
        if !self.lines {
            self.bar.set_message(message());
        }
        self.bar.inc(1);
    }

    /// A part is done: a line where there is no bar.
    pub fn line(&self, text: impl FnOnce() -> String) {
        if self.lines {
            eprintln!("{}", text());
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
