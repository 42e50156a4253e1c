//! `ws:`, `wss:` and `proxy=` by what stands in the way elsewhere: nginx, Caddy and HAProxy in front of a listener, Dante, tinyproxy and squid in
//! front of a dialler. Each is a process of its own at loopback. One that is not installed is said so, loudly, and its test passes; with
//! `CEPA_REQUIRE_INTEROP=1` it fails.

mod common;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use common::programs::{Running, have, ports};
use common::{Place, Server, finish, noise, sha256, text};

fn serve(place: &Place, at: &str) -> (Server, u16, String) {
    let server = place.serve(&[at, "--service", "up=exec:sha256sum", "--allow", "any"]);
    let address = server.address();
    let port = address.split(':').nth(2).unwrap();
    let digits = port
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(port.len());
    let (port, id) = (port[..digits].parse().unwrap(), server.id());
    (server, port, id)
}

/// The sum of a megabyte by way of an address, for a dialler with this environment.
fn works_with(place: &Place, address: &str, id: &str, environment: &[(&str, &str)]) {
    let data = noise(1 << 20);
    let mut command = place.cepa(&["connect", address, "up", "--expect", id]);
    command.envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let expected = sha256(&data);
    let writer = thread::spawn(move || input.write_all(&data));
    let output = finish(child);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{address}: {}",
        text(&output.stderr)
    );
    assert_eq!(text(&output.stdout), expected);
    writer.join().unwrap().unwrap();
}

fn works(place: &Place, address: &str, id: &str) {
    works_with(place, address, id, &[]);
}

fn fails(place: &Place, address: &str, code: i32, words: &str) {
    let line = place.fails_quietly(&["connect", address, "up", "--trust", "any"], code);
    assert!(line.contains(words), "{address}: {line}");
    assert!(!line.contains("sesame"), "{line}");
}

#[test]
fn dante() {
    let Some(program) = have("danted") else {
        return;
    };
    let place = Place::new();
    let (_server, port, id) = serve(&place, "tcp:127.0.0.1:0");
    let (_other, ws, ws_id) = serve(&place, "ws:127.0.0.1:0/cepa");
    let [socks, closed, forbidden] = ports();
    let config = format!(
        "logoutput: stderr\ninternal: 127.0.0.1 port = {socks}\nexternal: lo\n\
         clientmethod: none\nsocksmethod: none\nuser.privileged: root\nuser.unprivileged: nobody\n\
         client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n\
         socks block {{ from: 127.0.0.0/8 to: 127.0.0.1/32 port = {forbidden} }}\n\
         socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 protocol: tcp }}\n"
    );
    fs::write(place.path("danted.conf"), config).unwrap();
    let words = ["-f", &place.text("danted.conf"), "-p", &place.text("pid")];
    let log = place.path("danted.log");
    let _danted = Running::start(Command::new(program).args(words), &log, socks);
    for scheme in ["socks5", "socks5h"] {
        let proxy = format!("proxy={scheme}://127.0.0.1:{socks}");
        works(&place, &format!("tcp:127.0.0.1:{port},{proxy}"), &id);
        works(&place, &format!("tcp:localhost:{port},{proxy}"), &id);
        works(&place, &format!("ws:127.0.0.1:{ws}/cepa,{proxy}"), &ws_id);
        let at = |port| format!("tcp:127.0.0.1:{port},{proxy}");
        fails(&place, &at(closed), 5, "the target refused its connection");
        fails(
            &place,
            &at(forbidden),
            5,
            "its rules forbid this connection",
        );
    }
    // It asks for no login, and takes one that is offered beside none.
    let proxy = format!("proxy=socks5h://me:sesame@127.0.0.1:{socks}");
    works(&place, &format!("tcp:127.0.0.1:{port},{proxy}"), &id);
    let proxy = format!("proxy=socks5h://127.0.0.1:{socks}");
    fails(
        &place,
        &format!("tcp:no-such-host.invalid:1,{proxy}"),
        5,
        &format!("the proxy socks5h://127.0.0.1:{socks}: it"),
    );
    // SOCKS is no HTTP.
    let at = format!("tcp:127.0.0.1:{port},proxy=http://127.0.0.1:{socks}");
    let output = place.run(&["connect", &at, "up", "--trust", "any"]);
    assert!(matches!(output.status.code(), Some(2 | 6)), "{output:?}");
}

#[test]
fn tinyproxy() {
    let Some(program) = have("tinyproxy") else {
        return;
    };
    let place = Place::new();
    let (_server, port, id) = serve(&place, "tcp:127.0.0.1:0");
    let (_other, ws, ws_id) = serve(&place, "ws:127.0.0.1:0/cepa");
    let [http, closed] = ports();
    let config = format!(
        "Port {http}\nListen 127.0.0.1\nTimeout 60\nLogLevel Info\nBasicAuth me sesame\nMaxClients 20\n\
         ConnectPort {port}\nConnectPort {ws}\nConnectPort {closed}\n"
    );
    fs::write(place.path("tinyproxy.conf"), config).unwrap();
    let words = ["-d", "-c", &place.text("tinyproxy.conf")];
    let log = place.path("tinyproxy.log");
    let _proxy = Running::start(Command::new(program).args(words), &log, http);
    let proxy = format!("proxy=http://me:sesame@127.0.0.1:{http}");
    works(&place, &format!("tcp:127.0.0.1:{port},{proxy}"), &id);
    works(&place, &format!("tcp:localhost:{port},{proxy}"), &id);
    works(&place, &format!("ws:127.0.0.1:{ws}/cepa,{proxy}"), &ws_id);
    fails(&place, &format!("tcp:127.0.0.1:{closed},{proxy}"), 5, "it ");
    fails(
        &place,
        &format!("tcp:127.0.0.1:1,{proxy}"),
        5,
        "its rules forbid this connection",
    );
    for (login, words) in [
        ("", "asks for a login"),
        ("me:wrong-sesame@", "the user or the password"),
    ] {
        let proxy = format!("proxy=http://{login}127.0.0.1:{http}");
        let at = format!("tcp:127.0.0.1:{port},{proxy}");
        let line = place.fails_quietly(&["connect", &at, "up", "--trust", "any"], 5);
        // 401, 407: which, it has changed over the years.
        assert!(line.contains(words) || line.contains("forbid"), "{line}");
        assert!(!line.contains("sesame"), "{line}");
    }
}

#[test]
fn squid() {
    let Some(program) = have("squid") else {
        return;
    };
    let place = Place::new();
    let (_server, port, id) = serve(&place, "tcp:127.0.0.1:0");
    let (_other, ws, ws_id) = serve(&place, "ws:127.0.0.1:0/cepa");
    let [http, closed] = ports();
    // Its helper takes every user and every password, and nobody without.
    let config = format!(
        "http_port 127.0.0.1:{http}\npid_filename none\ncache_log /dev/null\naccess_log none\ncache_store_log none\n\
         cache deny all\nshutdown_lifetime 0 seconds\nvisible_hostname localhost\npinger_enable off\n\
         auth_param basic program /usr/lib/squid/basic_fake_auth\nacl known proxy_auth REQUIRED\n\
         acl here port {port} {ws} {closed}\nhttp_access deny !here\nhttp_access allow known\nhttp_access deny all\n"
    );
    fs::write(place.path("squid.conf"), config).unwrap();
    let words = ["-N", "-f", &place.text("squid.conf")];
    let log = place.path("squid.log");
    let _squid = Running::start(Command::new(program).args(words), &log, http);
    let proxy = format!("proxy=http://me:sesame@127.0.0.1:{http}");
    works(&place, &format!("tcp:127.0.0.1:{port},{proxy}"), &id);
    works(&place, &format!("tcp:localhost:{port},{proxy}"), &id);
    works(&place, &format!("ws:127.0.0.1:{ws}/cepa,{proxy}"), &ws_id);
    let at = format!("tcp:127.0.0.1:{closed},{proxy}");
    fails(&place, &at, 5, "it does not reach the target");
    let at = format!("tcp:127.0.0.1:1,{proxy}");
    fails(&place, &at, 5, "its rules forbid this connection");
    let at = format!("tcp:127.0.0.1:{port},proxy=http://127.0.0.1:{http}");
    fails(&place, &at, 5, "asks for a login");
}

/// Files of a front end with a certificate for `localhost`, by an authority of this test.
struct Certificates {
    ca: String,
    cert: String,
    key: String,
    pin: String,
}

fn certificates(place: &Place) -> Certificates {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut of_ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    of_ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = of_ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(of_ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let of_server = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let cert = of_server.signed_by(&key, &issuer).unwrap();
    for (name, pem) in [
        ("ca.pem", ca.pem()),
        ("cert.pem", cert.pem()),
        ("key.pem", key.serialize_pem()),
        ("both.pem", cert.pem() + &key.serialize_pem()),
    ] {
        fs::write(place.path(name), pem).unwrap();
    }
    // The tool for it that is on every machine where this test does anything.
    let pin = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "openssl pkey -in {} -pubout -outform DER | openssl dgst -sha256 -binary | base64",
            place.text("key.pem")
        ))
        .output()
        .unwrap();
    Certificates {
        ca: place.text("ca.pem"),
        cert: place.text("cert.pem"),
        key: place.text("key.pem"),
        pin: format!("sha256//{}", text(&pin.stdout).trim()),
    }
}

/// With an authority that the platform trusts, and with a pin; and neither.
fn trusts_a_front_end(place: &Place, port: u16, id: &str, it: &Certificates) {
    let at = format!("wss:localhost:{port}/cepa");
    works_with(place, &at, id, &[("SSL_CERT_FILE", &it.ca)]);
    works(
        place,
        &format!("wss:127.0.0.1:{port}/cepa,pin={}", it.pin),
        id,
    );
    let other = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    fails(place, &format!("{at},pin={other}"), 2, &it.pin);
    // Another name than the certificate's; and an authority that nobody trusts.
    for (at, ca) in [
        (format!("wss:127.0.0.1:{port}/cepa"), &it.ca),
        (at, &it.cert),
    ] {
        let mut command = place.cepa(&["connect", &at, "up", "--trust", "any"]);
        let output = finish(command.env("SSL_CERT_FILE", ca).spawn().unwrap());
        let line = common::failed(&output, 2);
        assert!(line.contains("is not trusted"), "{line}");
    }
}

#[test]
fn nginx() {
    let Some(program) = have("nginx") else { return };
    let place = Place::new();
    let it = certificates(&place);
    let (_server, back, id) = serve(&place, "ws:127.0.0.1:0/cepa");
    let [plain, tls, dead] = ports();
    // Takes connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let folder = place.text("");
    let pass = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;";
    let config = format!(
        "daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off;\n\
         client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;\n\
         uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
         server {{ listen 127.0.0.1:{plain}; return 404; }}\n\
         server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; server_name localhost 127.0.0.1;\n\
         ssl_certificate {}; ssl_certificate_key {};\n\
         location /cepa {{ proxy_pass http://127.0.0.1:{back}; {pass} }}\n\
         location /keyed {{ if ($http_x_key != sesame) {{ return 403; }} proxy_pass http://127.0.0.1:{back}/cepa; {pass} }}\n\
         location /plain {{ proxy_pass http://127.0.0.1:{back}/cepa; }}\n\
         location /away {{ return 301 https://elsewhere.example/; }}\n\
         location /slow {{ proxy_pass http://{silent_at}; proxy_read_timeout 1s; {pass} }}\n\
         location /dead {{ proxy_pass http://127.0.0.1:{dead}; {pass} }} }} }}\n",
        it.cert, it.key
    );
    fs::write(place.path("nginx.conf"), config).unwrap();
    let words = ["-p", &folder, "-c", &place.text("nginx.conf")];
    let log = place.path("nginx.log");
    let _nginx = Running::start(Command::new(program).args(words), &log, plain);
    let at = |path: &str| format!("ws:127.0.0.1:{plain}/{path}");
    works(&place, &at("cepa"), &id);
    works(&place, &at("keyed,header=X-Key:sesame"), &id);
    works(&place, &at("cepa,host=localhost"), &id);
    trusts_a_front_end(&place, tls, &id, &it);
    fails(&place, &at("keyed"), 5, "answered 403 Forbidden");
    fails(
        &place,
        &at("keyed,header=X-Key:wrong-sesame"),
        5,
        "header=NAME:VALUE",
    );
    fails(
        &place,
        &at("cepa,host=other.example"),
        5,
        "answered 404 Not Found",
    );
    fails(&place, &at("elsewhere"), 5, "answered 404 Not Found");
    fails(&place, &at("plain"), 2, "passes on Upgrade and Connection");
    fails(&place, &at("away"), 2, "https://elsewhere.example/");
    fails(&place, &at("slow"), 5, "answered 504 Gateway Time");
    fails(&place, &at("dead"), 5, "answered 502 Bad Gateway");
    // The wrong kind of port, both ways.
    fails(
        &place,
        &format!("ws:127.0.0.1:{tls}/cepa"),
        2,
        "answered 400 Bad Request",
    );
    fails(
        &place,
        &format!("wss:127.0.0.1:{plain}/cepa"),
        2,
        "speaks no TLS",
    );
}

#[test]
fn caddy() {
    let Some(program) = have("caddy") else { return };
    let place = Place::new();
    let it = certificates(&place);
    let (_server, back, id) = serve(&place, "ws:127.0.0.1:0/cepa");
    let [plain, tls, dead] = ports();
    let routes = format!(
        "bind 127.0.0.1\n handle /cepa {{\n reverse_proxy 127.0.0.1:{back}\n }}\n\
         handle /dead {{\n reverse_proxy 127.0.0.1:{dead}\n }}\n handle /away {{\n redir https://elsewhere.example/\n }}\n\
         handle {{\n respond 404\n }}\n"
    );
    let config = format!(
        "{{\n admin off\n auto_https off\n default_sni localhost\n}}\n\
         http://127.0.0.1:{plain} {{\n {routes} }}\n\
         https://localhost:{tls}, https://127.0.0.1:{tls} {{\n tls {} {}\n {routes} }}\n",
        it.cert, it.key
    );
    fs::write(place.path("Caddyfile"), config).unwrap();
    let words = [
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        &place.text("Caddyfile"),
    ];
    let log = place.path("caddy.log");
    let mut caddy = Command::new(program);
    caddy.args(words).env("HOME", place.text(""));
    let _caddy = Running::start(&mut caddy, &log, plain);
    let at = |path: &str| format!("ws:127.0.0.1:{plain}/{path}");
    works(&place, &at("cepa"), &id);
    trusts_a_front_end(&place, tls, &id, &it);
    fails(&place, &at("other"), 5, "answered 404 Not Found");
    fails(&place, &at("away"), 2, "https://elsewhere.example/");
    fails(&place, &at("dead"), 5, "answered 502 Bad Gateway");
    // Go answers in HTTP/1.0.
    let wrong = format!("ws:127.0.0.1:{tls}/cepa");
    fails(&place, &wrong, 2, "no WebSocket answers there");
    fails(
        &place,
        &format!("wss:127.0.0.1:{plain}/cepa"),
        2,
        "speaks no TLS",
    );
}

#[test]
fn haproxy() {
    let Some(program) = have("haproxy") else {
        return;
    };
    let place = Place::new();
    let it = certificates(&place);
    // The client's address comes before the request.
    let (mut server, back, id) = serve(&place, "ws:127.0.0.1:0/cepa,proxy-protocol=yes");
    let [plain, tls] = ports();
    let config = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout tunnel 1h\n\
         frontend f\n bind 127.0.0.1:{plain}\n bind 127.0.0.1:{tls} ssl crt {} alpn http/1.1\n\
         http-request return status 404 unless {{ path /cepa }}\n default_backend b\n\
         backend b\n server s 127.0.0.1:{back} send-proxy-v2\n",
        place.text("both.pem")
    );
    fs::write(place.path("haproxy.cfg"), config).unwrap();
    let words = ["-db", "-f", &place.text("haproxy.cfg")];
    let log = place.path("haproxy.log");
    let _haproxy = Running::start(Command::new(program).args(words), &log, plain);
    works(&place, &format!("ws:127.0.0.1:{plain}/cepa"), &id);
    let line = server.wait_for("session with");
    assert!(line.contains("ws 127.0.0.1:"), "{line}");
    trusts_a_front_end(&place, tls, &id, &it);
    fails(
        &place,
        &format!("ws:127.0.0.1:{plain}/other"),
        5,
        "answered 404 Not Found",
    );
    server.signal("KILL");
    server.finish();
    fails(
        &place,
        &format!("ws:127.0.0.1:{plain}/cepa"),
        5,
        "answered 503 Service Unavailable",
    );
}
