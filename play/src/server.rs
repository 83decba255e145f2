//! The connection to the server, and the server itself if none is named: it runs in this process,
//! on a port of this machine.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use fieldbook::sync::{Credentials, Secret};
use fieldbook::{Actor, HttpOptions, HttpRemote, Remote};
use fieldbook_server::{ServeOptions, Server, serve};

use crate::clock::VirtualClock;
use crate::failure::Failure;

/// The cache of the play's own server, in bytes.
const SERVER_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Connects to the server. Starts it if none is named.
pub(crate) async fn connect(
    server: Option<(String, Option<String>)>,
    folder: &Path,
    world: &Arc<VirtualClock>,
) -> Result<(Option<Server>, Arc<dyn Remote>), Failure> {
    let (server, url, token) = match server {
        Some((url, token)) => (None, url, token),
        None => {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let options = ServeOptions {
                clock: Some(Arc::<VirtualClock>::clone(world)),
                cache_bytes: SERVER_CACHE_BYTES,
                ..ServeOptions::new(listen, folder.join("server.redb"))
            };
            let server = serve(options)
                .await
                .map_err(|error| Failure::new("cannot start a server").because(error))?;
            let url = server.url();
            (Some(server), url, None)
        }
    };
    let remote = HttpRemote::new(&url, HttpOptions::default())
        .map_err(|error| Failure::usage("the server cannot be used").because(error))?;
    let remote = match token {
        Some(token) => remote.with_credentials(Arc::new(TokenOfAll(Secret::new(token)))),
        None => remote,
    };
    Ok((server, Arc::new(remote)))
}

/// One token that every author sends.
struct TokenOfAll(Secret);

impl Credentials for TokenOfAll {
    fn token<'a>(
        &'a self,
        _: &'a Actor,
    ) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send + 'a>> {
        Box::pin(std::future::ready(Some(self.0.clone())))
    }

    fn refresh<'a>(&'a self, _: &'a Actor) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(std::future::ready(false))
    }
}
