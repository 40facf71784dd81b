//! The wish to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes true with the first SIGTERM or SIGINT. Must be called within a tokio runtime.
pub fn requested() -> std::io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (stop, wish) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        // Kept until the end: a receiver must not take a vanished sender for a wish.
        std::future::pending::<()>().await;
    });
    Ok(wish)
}
