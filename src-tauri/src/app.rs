//! The app: holds the [`Desk`], the service and what is on screen, and lets them know of each other.
//!
//! Nothing turns by itself. One task hears the service, one the desktop, one paints: that one sleeps until something is
//! heard or [`Desk::next_wake`] is due, and paints at most every 100 ms.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use postern_local_api::proto::id::ResourceId;
use tauri::{AppHandle, ipc::Channel};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    desk::Desk,
    desktop::Said,
    instance::{First, Wish},
    link::{self, Target},
    notify::show::Bubbles,
    options::Options,
    service::{Heard, Service},
    settings::Store,
    tray::{
        icon::Panel,
        menu::{Action, menu},
        shell::Tray,
    },
    view::{Change, LogExport, Notice, NoticeLevel, Place, Problem, Question, Theme, Which},
    words::Word,
};

mod ask;
mod calls;
mod files;
mod revival;

use revival::Revival;

/// The window is told of changes at most this often.
const PAINT: Duration = Duration::from_millis(100);
/// How long after a login a desktop may take to show trays.
const TRAY_PATIENCE: Duration = Duration::from_secs(15);
/// The details that are open are fetched at most this often.
const DETAILS: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct App {
    service: Arc<dyn Service>,
    desk: Mutex<Desk>,
    store: Store,
    tray: Tray,
    bubbles: Bubbles,
    /// What the desktop says of itself.
    tray_host: AtomicBool,
    wake: Notify,
    details_wake: Notify,
    window: Mutex<Option<Channel<Vec<Change>>>>,
    shell: OnceLock<AppHandle>,
    doctor: Mutex<Option<AbortHandle>>,
    export: Mutex<Option<LogExport>>,
    saved: Mutex<Option<std::path::PathBuf>>,
    started: std::time::Instant,
    usable: AtomicBool,
    quitting: AtomicBool,
    options: Options,
}

/// Milliseconds since 1970.
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl App {
    pub(crate) fn new(service: Arc<dyn Service>, desk: Desk, store: Store, options: Options) -> Arc<Self> {
        Arc::new(Self {
            service,
            desk: Mutex::new(desk),
            store,
            tray: Tray::default(),
            bubbles: Bubbles::default(),
            tray_host: AtomicBool::new(false),
            wake: Notify::new(),
            details_wake: Notify::new(),
            window: Mutex::new(None),
            shell: OnceLock::new(),
            doctor: Mutex::new(None),
            export: Mutex::new(None),
            saved: Mutex::new(None),
            started: std::time::Instant::now(),
            usable: AtomicBool::new(false),
            quitting: AtomicBool::new(false),
            options,
        })
    }

    /// Begins all that goes on in the background. `shell` is the running app.
    pub(crate) fn begin(self: &Arc<Self>, shell: AppHandle) {
        if self.shell.set(shell).is_err() {
            return;
        }
        self.look_at_autostart();
        let app = Arc::clone(self);
        tauri::async_runtime::spawn(async move { app.hear().await });
        let app = Arc::clone(self);
        tauri::async_runtime::spawn(async move { app.paint().await });
        let app = Arc::clone(self);
        tauri::async_runtime::spawn(async move { app.follow_desktop().await });
        let app = Arc::clone(self);
        tauri::async_runtime::spawn(async move { app.follow_details().await });
        let app = Arc::clone(self);
        tauri::async_runtime::spawn(async move { app.follow_signals().await });
        if self.options.hidden {
            let app = Arc::clone(self);
            tauri::async_runtime::spawn(async move { app.appear_without_tray().await });
        }
    }

    /// The system's own entry decides whether the app starts at login; a person may have changed it elsewhere.
    fn look_at_autostart(&self) {
        let Some(shell) = self.shell.get().filter(|_| self.options.mock.is_none()) else { return };
        let start_at_login = crate::autostart::is_on(shell);
        self.with(|desk, _| {
            let settings = crate::view::Settings { start_at_login, ..desk.settings().clone() };
            desk.set_settings(settings);
        });
    }

    /// Takes the wish of this start, and those of later ones.
    pub(crate) fn begin_wishes(self: Arc<Self>, first: Option<First>, wish: Wish) {
        if wish.link.is_some() {
            self.take_wish(&wish);
        }
        let Some(first) = first else { return };
        tauri::async_runtime::spawn(async move {
            match first.listen() {
                Ok(mut wishes) => {
                    while let Some(wish) = wishes.recv().await {
                        self.take_wish(&wish);
                    }
                }
                Err(error) => tracing::warn!(%error, "later starts cannot be heard"),
            }
        });
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the desk, and paints what came of it.
    fn with<T>(&self, change: impl FnOnce(&mut Desk, u64) -> T) -> T {
        let result = change(&mut self.desk(), wall());
        self.wake.notify_one();
        result
    }

    async fn hear(self: Arc<Self>) {
        let mut heard = self.service.follow();
        let mut connect_favourites = self.desk().settings().connect_favourites;
        let mut started = false;
        let mut revival = Revival::default();
        while let Some(one) = heard.recv().await {
            let lost = matches!(one, Heard::Lost(_));
            self.with(|desk, now| desk.hear(now, one));
            if lost && !started {
                tokio::spawn(Arc::clone(&self).bring_up());
            } else if lost && let Some(pause) = revival.pause(self.started.elapsed()) {
                tokio::spawn(Arc::clone(&self).revive(pause));
            }
            started = true;
            if connect_favourites && self.desk().is_signed_in() {
                connect_favourites = false;
                let app = Arc::clone(&self);
                tokio::spawn(async move { app.connect(Which::Favourites).await });
            }
        }
    }

    async fn bring_up(self: Arc<Self>) {
        if let Err(problem) = self.start_service().await {
            self.with(|desk, now| desk.start_failed(now, problem));
        }
    }

    /// Starts the service again if it broke down and nobody else has started it after `pause`.
    async fn revive(self: Arc<Self>, pause: Duration) {
        sleep(pause).await;
        if self.service.broke_down().await {
            tracing::warn!("posternd broke down and is started again");
            self.bring_up().await;
        }
    }

    async fn paint(self: Arc<Self>) {
        let mut painted = Instant::now();
        loop {
            let next = self.desk().next_wake(wall());
            let due = next.map(|at| Instant::now() + Duration::from_millis(at.saturating_sub(wall())));
            tokio::select! {
                () = self.wake.notified() => {}
                () = async { match due { Some(due) => sleep_until(due).await, None => std::future::pending().await } } => {}
            }
            sleep_until(painted + PAINT).await;
            painted = Instant::now();
            self.paint_once();
        }
    }

    fn paint_once(self: &Arc<Self>) {
        let now = wall();
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (changes, facts, due, language, stored) = {
            let mut desk = self.desk();
            // Without a window changes are kept; they are merged, so that they cannot pile up.
            let changes = if window.is_some() && desk.has_changes() { desk.take_changes(now) } else { Vec::new() };
            let language = desk.language();
            let muted = desk.settings().muted.clone();
            let due = desk.watch().due(now, &muted, language);
            (changes, desk.tray(now), due, language, desk.take_stored())
        };
        if let Some(window) = window.filter(|_| !changes.is_empty()) {
            self.details_wake.notify_one();
            if let Err(error) = window.send(changes) {
                tracing::debug!(%error, "the window does not listen");
            }
        }
        self.draw_tray(menu(&facts));
        for notification in due {
            let (clicked, failed) = (Arc::clone(self), Arc::clone(self));
            self.bubbles.show(
                notification,
                language.word(Word::Show),
                move |place| clicked.show(place),
                move |error| {
                    tracing::info!(%error, "no notification service");
                    failed.hear_desktop(Said::NotificationService(false));
                },
            );
        }
        if let Some(stored) = stored {
            self.keep(&stored);
        }
    }

    fn keep(&self, stored: &crate::settings::Stored) {
        if let Err(error) = self.store.save(stored) {
            tracing::warn!(%error, "the settings are not kept");
            self.with(|desk, _| desk.warn(format!("The settings were not kept: {error}.")));
        }
    }

    fn draw_tray(self: &Arc<Self>, menu: crate::tray::menu::Menu) {
        if !self.tray_host.load(Ordering::Relaxed) {
            return;
        }
        let Some(shell) = self.shell.get() else { return };
        let panel = panel(self.desk().desktop().system_dark);
        let (app, handle) = (Arc::clone(self), shell.clone());
        let drawn = shell.run_on_main_thread(move || {
            let state = match app.tray.draw(&handle, &app, menu, panel) {
                Ok(()) => crate::view::Tray::Shown,
                Err(reason) => crate::view::Tray::Missing { reason },
            };
            app.set_tray_state(state);
        });
        if let Err(error) = drawn {
            tracing::debug!(%error, "the app is ending");
        }
    }

    fn set_tray_state(&self, state: crate::view::Tray) {
        if self.desk().desktop().tray == state {
            return;
        }
        tracing::info!(?state, "tray");
        self.with(|desk, _| {
            let desktop = crate::view::Desktop { tray: state, ..desk.desktop().clone() };
            desk.set_desktop(desktop);
        });
    }

    async fn follow_desktop(self: Arc<Self>) {
        let mut said = crate::desktop::follow();
        while let Some(said) = said.recv().await {
            self.hear_desktop(said);
        }
    }

    fn hear_desktop(self: &Arc<Self>, said: Said) {
        match said {
            Said::TrayHost(here) => {
                self.tray_host.store(here, Ordering::Relaxed);
                if here {
                    self.wake.notify_one();
                    return;
                }
                let reason = "This desktop shows no tray icons.".to_owned();
                self.set_tray_state(crate::view::Tray::Missing { reason });
            }
            Said::ScreenLocked => {
                let wanted = {
                    let desk = self.desk();
                    desk.settings().lock_with_screen && desk.is_signed_in()
                };
                if wanted {
                    self.spawn(async |app| app.lock().await);
                }
            }
            Said::Dark(system_dark) => self.with(|desk, _| {
                let desktop = crate::view::Desktop { system_dark, ..desk.desktop().clone() };
                desk.set_desktop(desktop);
            }),
            Said::NotificationService(notifications) => self.with(|desk, _| {
                let desktop = crate::view::Desktop { notifications, ..desk.desktop().clone() };
                desk.set_desktop(desktop);
            }),
        }
    }

    /// SIGTERM and SIGINT end the app; connections stay.
    async fn follow_signals(self: Arc<Self>) {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        self.leave();
    }

    /// Started hidden on a desktop without a tray, the app would be nowhere.
    async fn appear_without_tray(self: Arc<Self>) {
        sleep(TRAY_PATIENCE).await;
        if !self.has_tray() {
            self.raise();
        }
    }

    /// Sends the open details again when they may have changed.
    async fn follow_details(self: Arc<Self>) {
        let mut before = None;
        loop {
            self.details_wake.notified().await;
            let status = {
                let desk = self.desk();
                desk.opened().and_then(|id| desk.status_of(id)).cloned()
            };
            if status.is_none() || status == before {
                continue;
            }
            if let Some(status) = &status
                && let Ok(Some(details)) = self.details(status.resource.id).await
            {
                self.send(Change::Details { details: Box::new(details) });
            }
            before = status;
            sleep(DETAILS).await;
            // What changed meanwhile is looked at now.
            self.details_wake.notify_one();
        }
    }

    fn send(&self, change: Change) {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(Err(error)) = window.map(|window| window.send(vec![change])) {
            tracing::debug!(%error, "the window does not listen");
        }
    }

    /// A page begins to listen.
    pub(crate) fn watch(&self, channel: Channel<Vec<Change>>) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
        self.with(|desk, _| desk.tell_all());
    }

    /// The page is painted.
    pub(crate) fn usable(&self) {
        if !self.usable.swap(true, Ordering::Relaxed) {
            crate::window::say_ready(self.started.elapsed());
        }
    }

    /// Whether the page will be dark, as far as is known.
    pub(crate) fn is_dark(&self) -> bool {
        let desk = self.desk();
        match desk.settings().theme {
            Theme::Dark => true,
            Theme::Light => false,
            Theme::System => desk.desktop().system_dark.unwrap_or_default(),
        }
    }

    /// The page is gone with its window.
    pub(crate) fn window_gone(&self) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.desk().open(None);
    }

    /// Shows the window at a place.
    pub(crate) fn show(&self, place: Place) {
        self.with(|desk, _| desk.go(place));
        self.raise();
    }

    fn raise(&self) {
        if let Some(shell) = self.shell.get() {
            crate::window::open(shell);
        }
    }

    /// A second start, or a link.
    pub(crate) fn take_wish(&self, wish: &Wish) {
        match wish.link.as_deref().map(link::parse) {
            None if wish.hidden => {}
            None => self.raise(),
            Some(Ok(Target::Resource { name })) => {
                self.with(|desk, _| desk.link_asks(name));
                self.raise();
            }
            Some(Err(error)) => {
                let text = format!("That link leads nowhere: {error}.");
                self.with(|desk, _| desk.tell(Notice { level: NoticeLevel::Warning, text, resource: None }));
                self.raise();
            }
        }
    }

    /// What was chosen in the tray.
    pub(crate) fn act(self: &Arc<Self>, action: Action) {
        self.tray.click(&action);
        self.wake.notify_one();
        match action {
            Action::Open => self.raise(),
            Action::Show(id) => self.show(Place::Resource { id }),
            Action::SignIn => self.show(Place::SignIn),
            Action::Unlock => self.show(Place::Home),
            Action::Settings => self.show(Place::Settings),
            Action::Lock => self.spawn(async |app| app.lock().await),
            Action::Quit => self.spawn(async |app| app.quit().await),
            Action::Toggle { id, on } => self.spawn(async move |app| {
                let which = Which::Ids { ids: vec![id] };
                if on { app.connect(which).await.map(drop) } else { app.disconnect(which).await.map(drop) }
            }),
            Action::Copy(id) => {
                self.spawn(async move |app| app.copy(crate::view::Clip::Addresses { ids: vec![id] }).map(drop))
            }
            Action::ConnectFavourites => self.spawn(async |app| app.connect(Which::Favourites).await.map(drop)),
            Action::DisconnectAll => self.spawn(async |app| app.disconnect(Which::All).await.map(drop)),
        }
    }

    /// Does something that no page waits for; a problem is shown in the window.
    fn spawn<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), Problem>> + Send,
    {
        let app = Arc::clone(self);
        tauri::async_runtime::spawn(async move {
            if let Err(problem) = work(Arc::clone(&app)).await {
                let text = [problem.what.as_str(), &problem.why].join(" ").trim().to_owned();
                app.with(|desk, _| desk.tell(Notice { level: NoticeLevel::Error, text, resource: None }));
                app.raise();
            }
        });
    }

    pub(crate) fn has_tray(&self) -> bool {
        self.tray_host.load(Ordering::Relaxed) && self.tray.is_drawn()
    }

    fn named(id: &str) -> Result<ResourceId, Problem> {
        id.parse().map_err(|_| unknown())
    }

    fn ask(&self, question: Option<Question>) {
        self.with(|desk, _| desk.ask(question));
    }
}

fn unknown() -> Problem {
    crate::desk::problem_of("no_such_resource", "There is no such resource.", "It may have left your list.", "")
}

/// Which picture fits the panel. GNOME's is dark in either theme; KDE's follows it; most others are dark.
fn panel(dark: Option<bool>) -> Panel {
    if cfg!(target_os = "macos") {
        return Panel::Mono;
    }
    let desktop = std::env::var("XDG_CURRENT_DESKTOP").unwrap_or_default();
    if desktop.split(':').any(|name| name.eq_ignore_ascii_case("KDE")) && dark == Some(false) {
        Panel::Light
    } else {
        Panel::Dark
    }
}
