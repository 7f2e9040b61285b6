//! Which picture the tray shows, and its bytes.

/// The state that a picture stands for. When several apply, the first of this order is shown (design §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Icon {
    /// Nothing can be carried.
    Error,
    /// Signed out, or locked.
    SignedOut,
    /// The sign-in, or access to something, ends soon.
    Expiring,
    /// Something is unhealthy, the rest goes on.
    Degraded,
    Connecting,
    /// A new version is ready.
    Update,
    Connected,
}

/// The colours of the panel that it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Panel {
    Light,
    Dark,
    /// The system tints it by itself (macOS).
    Mono,
}

impl Icon {
    pub const ALL: [Self; 7] =
        [Self::Error, Self::SignedOut, Self::Expiring, Self::Degraded, Self::Connecting, Self::Update, Self::Connected];

    /// The strongest of those that apply; "connected" stands for "nothing else".
    #[must_use]
    pub fn strongest(applying: impl IntoIterator<Item = Self>) -> Self {
        applying.into_iter().min().unwrap_or(Self::Connected)
    }

    /// A PNG of 32 × 32 pixels. Hosts scale it down to their own size.
    #[must_use]
    pub fn png(self, panel: Panel) -> &'static [u8] {
        macro_rules! pictures {
            ($($icon:ident $file:literal)*) => {
                match (self, panel) {
                    $(
                        (Self::$icon, Panel::Light) => include_bytes!(concat!("../../icons/tray/", $file, "-light.png")),
                        (Self::$icon, Panel::Dark) => include_bytes!(concat!("../../icons/tray/", $file, "-dark.png")),
                        (Self::$icon, Panel::Mono) => include_bytes!(concat!("../../icons/tray/", $file, "-mono.png")),
                    )*
                }
            };
        }
        pictures! {
            Error "error" SignedOut "signed-out" Expiring "expiring" Degraded "degraded" Connecting "connecting"
            Update "update" Connected "connected"
        }
    }
}
