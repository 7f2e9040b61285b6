//! `status --watch`: the status, drawn anew with each change.
//!
//! The picture is drawn over the last one with cursor movements only. There is no alternate screen, no hidden cursor and
//! no raw mode, so that nothing has to be put back, however the program ends.

use std::{fmt::Write as _, io, time::Duration};

use postern_local_api::{
    client::{ClientError, LocalClient, Update},
    message::{Event, NoticeLevel, Status},
    mirror,
};
use rustix::termios::tcgetwinsize;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::status;
use crate::{
    context::Context,
    failure::Failure,
    screen::{BAD, DIM, Line, WARN},
    text,
};

/// Changes that come within this time are shown together.
const TOGETHER: Duration = Duration::from_millis(100);
/// How often spans of time are brought up to date.
const TICK: Duration = Duration::from_secs(1);
/// Updates that wait while a picture is drawn; the reader of events waits when it is full.
const QUEUE: usize = 256;

pub(crate) async fn watch(as_json: bool, context: &mut Context) -> Result<(), Failure> {
    let service = context.service().await?;
    let mut updates = follow(service);
    let mut view = View { picture: Picture::default(), status: None, lost: None, as_json };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draw_at: Option<Instant> = None;
    let live = !as_json && context.screen.is_terminal();
    loop {
        let due = draw_at.unwrap_or_else(|| Instant::now() + TICK);
        tokio::select! {
            update = updates.recv() => match update {
                Some(update) => {
                    if view.take(update?, context)? {
                        draw_at.get_or_insert_with(|| Instant::now() + TOGETHER);
                    }
                }
                None => return Ok(()),
            },
            () = sleep_until(due), if draw_at.is_some() => {
                draw_at = None;
                view.draw(context)?;
            }
            _ = tick.tick(), if live && draw_at.is_none() => view.draw(context)?,
        }
    }
}

fn follow(service: LocalClient) -> mpsc::Receiver<Result<Update, ClientError>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut follow = service.follow();
        loop {
            let update = follow.next().await;
            let over = update.is_err();
            if sender.send(update).await.is_err() || over {
                return;
            }
        }
    });
    receiver
}

struct View {
    picture: Picture,
    status: Option<Status>,
    lost: Option<ClientError>,
    as_json: bool,
}

impl View {
    /// Returns whether there is something to draw.
    fn take(&mut self, update: Update, context: &mut Context) -> Result<bool, Failure> {
        match update {
            Update::Lost(error) => {
                if self.as_json {
                    context.screen.json_line(&json!({ "event": "lost", "error": error.to_string() }))?;
                    context.screen.flush()?;
                }
                self.lost = Some(error);
                Ok(!self.as_json)
            }
            Update::Event(event) => {
                if let Event::Notice { level, text } = &*event {
                    self.notice(*level, text, context)?;
                    return Ok(!self.as_json);
                }
                self.lost = None;
                mirror::apply(&mut self.status, *event);
                Ok(true)
            }
        }
    }

    fn notice(&mut self, level: NoticeLevel, text: &str, context: &mut Context) -> Result<(), Failure> {
        if self.as_json {
            context.screen.json_line(&json!({ "event": "notice", "level": level, "text": text }))?;
        } else {
            let style = match level {
                NoticeLevel::Info => DIM,
                NoticeLevel::Warning => WARN,
                NoticeLevel::Error => BAD,
            };
            self.picture.leave();
            let at = Line::new().styled(DIM, text::instant(text::now())).plain(" ").styled(style, text);
            context.screen.line(&at)?;
        }
        Ok(context.screen.flush()?)
    }

    fn draw(&mut self, context: &mut Context) -> Result<(), Failure> {
        let Some(status) = &self.status else { return Ok(()) };
        if self.as_json {
            context.screen.json_line(&json!({ "event": "status", "status": status }))?;
            return Ok(context.screen.flush()?);
        }
        let now = text::now();
        let mut lines = status::overview(status, now);
        if let Some(error) = &self.lost {
            let why = match error {
                ClientError::NotRunning { .. } | ClientError::BrokenOff { .. } => "posternd is not running".to_owned(),
                error => error.to_string(),
            };
            lines.insert(0, Line::new().styled(BAD, why).styled(DIM, ", waiting for it. Last known:"));
        }
        let grid = status::connected(status);
        if context.screen.is_terminal() {
            let (columns, rows) = window();
            let mut all: Vec<String> =
                lines.into_iter().map(|line| line.clip(usize::from(columns)).to_string()).collect();
            if !grid.is_empty() {
                all.push(String::new());
                all.extend(grid.lines(Some(columns)));
            }
            all.push(Line::new().styled(DIM, "Ctrl-C ends this").to_string());
            context.screen.picture(&self.picture.redraw(&all, usize::from(rows)))?;
        } else {
            context.screen.lines(&lines)?;
            if !grid.is_empty() {
                context.screen.grid(&grid)?;
            }
            context.screen.line(&Line::new())?;
        }
        Ok(context.screen.flush()?)
    }
}

/// Columns and rows of the terminal; the usual ones where it does not tell.
fn window() -> (u16, u16) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 1 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}

/// What stands on the terminal, so that it can be drawn over.
#[derive(Default)]
struct Picture {
    /// How many lines the cursor is below the first one.
    height: usize,
}

impl Picture {
    /// The text that draws `lines` over the last picture on a terminal with so many rows.
    fn redraw(&mut self, lines: &[String], rows: usize) -> String {
        // The last row holds the cursor.
        let room = rows.saturating_sub(1).max(1);
        let mut text = String::new();
        if self.height > 0 {
            let _ = write!(text, "\x1b[{}A", self.height.min(room));
        }
        text.push('\r');
        let shown = if lines.len() > room { room.saturating_sub(1) } else { lines.len() };
        for line in lines.iter().take(shown) {
            let _ = writeln!(text, "{line}\x1b[K");
        }
        let mut height = shown;
        if shown < lines.len() {
            let _ = writeln!(text, "… {} more; make the window taller\x1b[K", lines.len() - shown);
            height += 1;
        }
        text.push_str("\x1b[J");
        self.height = height;
        text
    }

    /// Leaves the picture where it is; the next one is drawn below.
    const fn leave(&mut self) {
        self.height = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(n: usize) -> Vec<String> {
        (0..n).map(|n| format!("line {n}")).collect()
    }

    #[test]
    fn a_picture_is_drawn_over_the_last_one() {
        let mut picture = Picture::default();
        assert_eq!(picture.redraw(&lines(2), 24), "\rline 0\x1b[K\nline 1\x1b[K\n\x1b[J");
        assert_eq!(picture.redraw(&lines(1), 24), "\x1b[2A\rline 0\x1b[K\n\x1b[J");
        assert_eq!(picture.redraw(&lines(1), 24), "\x1b[1A\rline 0\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_picture_never_scrolls_the_terminal() {
        let mut picture = Picture::default();
        let text = picture.redraw(&lines(100), 10);
        assert_eq!(text.matches('\n').count(), 9);
        assert!(text.contains("… 92 more"), "{text}");
        assert!(picture.redraw(&lines(100), 5).starts_with("\x1b[4A"));
    }
}
