//! Quitting and links: what a person is asked first.

use std::sync::{Arc, atomic::Ordering};

use super::App;
use crate::view::{CloseBehaviour, Place, Problem, Question, QuitAnswer, QuitBehaviour, Settings, Which};

impl App {
    /// "Quit", wherever it was chosen.
    pub(crate) async fn quit(&self) -> Result<(), Problem> {
        let (connected, streams) = self.desk().connected();
        let behaviour = self.desk().settings().quit;
        let reachable = self.desk().link_is_up();
        match behaviour {
            // Without a service there is nothing to disconnect, and nobody to ask.
            _ if connected == 0 || !reachable => self.leave(),
            QuitBehaviour::KeepConnected => self.leave(),
            QuitBehaviour::Disconnect => return self.disconnect_and_leave().await,
            QuitBehaviour::Ask => {
                self.ask(Some(Question::Quit { connected, streams }));
                self.raise();
            }
        }
        Ok(())
    }

    pub(crate) async fn answer_quit(&self, answer: QuitAnswer, remember: bool) -> Result<(), Problem> {
        if !matches!(self.desk().question(), Some(Question::Quit { .. })) {
            return Ok(());
        }
        self.ask(None);
        let behaviour = match answer {
            QuitAnswer::Cancel => return Ok(()),
            QuitAnswer::KeepConnected => QuitBehaviour::KeepConnected,
            QuitAnswer::Disconnect => QuitBehaviour::Disconnect,
        };
        if remember {
            self.with(|desk, _| {
                let settings = Settings { quit: behaviour, ..desk.settings().clone() };
                desk.set_settings(settings);
            });
        }
        match answer {
            QuitAnswer::Disconnect => self.disconnect_and_leave().await,
            QuitAnswer::KeepConnected | QuitAnswer::Cancel => {
                self.leave();
                Ok(())
            }
        }
    }

    async fn disconnect_and_leave(&self) -> Result<(), Problem> {
        self.disconnect(Which::All).await?;
        self.leave();
        Ok(())
    }

    /// Ends the app; what was changed is kept first.
    pub(super) fn leave(&self) {
        let stored = self.desk().take_stored();
        if let Some(stored) = stored {
            self.keep(&stored);
        }
        self.quitting.store(true, Ordering::Relaxed);
        if let Some(shell) = self.shell.get() {
            shell.exit(0);
        }
    }

    /// What closing the window does now. Without a tray it never hides.
    pub(crate) fn closing(&self) -> CloseBehaviour {
        match self.desk().settings().close {
            CloseBehaviour::Hide if !self.has_tray() => CloseBehaviour::Quit,
            behaviour => behaviour,
        }
    }

    pub(crate) fn quit_by_closing(self: &Arc<Self>) {
        self.spawn(async |app| app.quit().await);
    }

    /// Whether the end of the app was decided.
    pub(crate) fn is_quitting(&self) -> bool {
        self.quitting.load(Ordering::Relaxed)
    }

    pub(crate) async fn answer_link(&self, connect: bool) -> Result<(), Problem> {
        let Some(Question::Link { id, .. }) = self.desk().question().cloned() else { return Ok(()) };
        self.ask(None);
        let Some(id) = id.filter(|_| connect) else { return Ok(()) };
        self.with(|desk, _| desk.go(Place::Resource { id: id.clone() }));
        self.connect(Which::Ids { ids: vec![id] }).await.map(drop)
    }
}
