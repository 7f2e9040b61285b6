//! Draws the menu with Tauri's tray. What cannot be drawn is logged; the app goes on without a tray.

use std::sync::{Arc, Mutex, PoisonError};

use tauri::{
    AppHandle, Wry,
    image::Image,
    menu::{CheckMenuItemBuilder, IsMenuItem, Menu as Drawn, MenuItemBuilder, PredefinedMenuItem, SubmenuBuilder},
    tray::{MouseButton, MouseButtonState, TrayIcon, TrayIconBuilder, TrayIconEvent},
};

use super::{
    icon::{Icon, Panel},
    menu::{Action, Item, Menu},
};
use crate::app::App;

/// Stable over starts: the name under which the desktop remembers the icon.
const ID: &str = "main";

/// The tray, once it is drawn.
#[derive(Default)]
pub(crate) struct Tray {
    drawn: Mutex<Option<Shown>>,
}

struct Shown {
    tray: TrayIcon<Wry>,
    menu: Menu,
    panel: Panel,
}

impl Tray {
    /// Draws the tray, or what differs from what is drawn. To be called on the main thread.
    pub(crate) fn draw(&self, app: &AppHandle, state: &Arc<App>, menu: Menu, panel: Panel) -> Result<(), String> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *drawn {
            Some(shown) => update(app, shown, menu, panel),
            none => build(app, state, &menu, panel).map(|tray| *none = Some(Shown { tray, menu, panel })),
        };
        result.map_err(|error| error.to_string())
    }

    /// Remembers what the toolkit did to the menu at a click, so that the next drawing sets a tick that is wrong.
    pub(crate) fn click(&self, action: &Action) {
        if let Some(shown) = &mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner) {
            shown.menu.click(action);
        }
    }

    pub(crate) fn is_drawn(&self) -> bool {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

fn build(app: &AppHandle, state: &Arc<App>, menu: &Menu, panel: Panel) -> tauri::Result<TrayIcon<Wry>> {
    let (clicks, choices) = (Arc::clone(state), Arc::clone(state));
    TrayIconBuilder::with_id(ID)
        .title("Postern")
        .tooltip(&menu.tooltip)
        .icon(picture(menu.icon, panel)?)
        .icon_as_template(panel == Panel::Mono)
        .show_menu_on_left_click(false)
        .menu(&drawn(app, &menu.items)?)
        .on_menu_event(move |_, event| match serde_json::from_str::<Action>(&event.id().0) {
            Ok(action) => choices.act(action),
            Err(error) => tracing::warn!(%error, "the tray has an item of no meaning"),
        })
        .on_tray_icon_event(move |_, event| {
            if let TrayIconEvent::Click { button: MouseButton::Left, button_state: MouseButtonState::Up, .. } = event {
                clicks.act(Action::Open);
            }
        })
        .build(app)
}

fn update(app: &AppHandle, shown: &mut Shown, menu: Menu, panel: Panel) -> tauri::Result<()> {
    if shown.menu.icon != menu.icon || shown.panel != panel {
        shown.tray.set_icon(Some(picture(menu.icon, panel)?))?;
        shown.panel = panel;
    }
    if shown.menu.tooltip != menu.tooltip {
        shown.tray.set_tooltip(Some(&menu.tooltip))?;
    }
    if shown.menu.items != menu.items {
        shown.tray.set_menu(Some(drawn(app, &menu.items)?))?;
    }
    shown.menu = menu;
    Ok(())
}

fn picture(icon: Icon, panel: Panel) -> tauri::Result<Image<'static>> {
    Image::from_bytes(icon.png(panel))
}

/// What a choice means is its id, so that a menu that is out of date never does something else than it says.
fn drawn(app: &AppHandle, items: &[Item]) -> tauri::Result<Drawn<Wry>> {
    let menu = Drawn::new(app)?;
    for item in items {
        menu.append(&*one(app, item)?)?;
    }
    Ok(menu)
}

fn one(app: &AppHandle, item: &Item) -> tauri::Result<Box<dyn IsMenuItem<Wry>>> {
    Ok(match item {
        Item::Text(text) => Box::new(MenuItemBuilder::new(plain(text)).enabled(false).build(app)?),
        Item::Separator => Box::new(PredefinedMenuItem::separator(app)?),
        Item::Button { label, action } => Box::new(MenuItemBuilder::with_id(id(action), plain(label)).build(app)?),
        Item::Check { label, checked, action } => {
            Box::new(CheckMenuItemBuilder::with_id(id(action), plain(label)).checked(*checked).build(app)?)
        }
        Item::Submenu { label, items } => {
            let mut submenu = SubmenuBuilder::new(app, plain(label));
            let items: Vec<_> = items.iter().map(|item| one(app, item)).collect::<Result<_, _>>()?;
            for item in &items {
                submenu = submenu.item(&**item);
            }
            Box::new(submenu.build()?)
        }
    })
}

fn id(action: &Action) -> String {
    serde_json::to_string(action).unwrap_or_default()
}

/// In a label `&` marks a mnemonic; a name means itself.
fn plain(text: &str) -> String {
    text.replace('&', "&&")
}
