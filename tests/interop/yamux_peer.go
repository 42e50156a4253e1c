// A mux peer on hashicorp/yamux: the implementation that defined the wire format, in another language.
//
// It speaks YTP/1, the stream protocol of cepa's mux tests, in both roles:
//
//	yamux_peer server --portfile F [--tls DIR] [--limit S] [--window N]
//	yamux_peer client --port N     [--tls DIR] [--limit S] [--window N] [--count N] [--mib N]
//
// The client opens every stream and judges; the first line of a stream tells the server what to do with it.
// The last line on standard output is PASS or FAIL.
//
// Two things that Debian's release (2019) can't do shape this program. It has no call to reset a stream, so as
// server it answers CANT. And it answers Read after Close with io.EOF as long as nothing has arrived, though only
// its own side is closed; so the client, which knows how long each answer is, goes on reading until it has it.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

var (
	portfile = flag.String("portfile", "", "server: listen on a free port and write its number here")
	port     = flag.Int("port", 0, "client: connect to this port of 127.0.0.1")
	tlsDir   = flag.String("tls", "", "TLS 1.3 with {driver,responder}-A.{crt,key}.pem of this folder")
	limit    = flag.Int("limit", 120, "seconds until the program gives up")
	window   = flag.Uint("window", 256*1024, "receive window of a stream in bytes")
	count    = flag.Int("count", 2000, "streams that are opened and closed")
	mib      = flag.Int("mib", 16, "MiB that go one way over one stream")
)

// The answer to HASH carries this many bytes behind its first line.
const tailSize = 100000

func tail() []byte {
	data := make([]byte, tailSize)
	for i := range data {
		data[i] = byte(i % 256)
	}
	return data
}

func main() {
	if len(os.Args) < 2 {
		fmt.Println("FAIL usage: yamux_peer server|client OPTIONS")
		os.Exit(2)
	}
	role := os.Args[1]
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		os.Exit(2)
	}
	time.AfterFunc(time.Duration(*limit)*time.Second, func() { end(role, "", errors.New("the time is up")) })
	switch role {
	case "server":
		note, err := server()
		end(role, note, err)
	case "client":
		note, err := client()
		end(role, note, err)
	default:
		end(role, "", errors.New("the first word is server or client"))
	}
}

var endOnce sync.Once

func end(role, note string, err error) {
	endOnce.Do(func() {
		if err != nil {
			fmt.Printf("FAIL go %s: %v\n", role, err)
			os.Exit(1)
		}
		fmt.Printf("PASS go %s: %s\n", role, note)
		os.Exit(0)
	})
	select {} // another goroutine is already ending the program
}

func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.MaxStreamWindowSize = uint32(*window)
	c.LogOutput = os.Stderr
	return c
}

// Mutual TLS 1.3; the certificate of the other side is compared as it is, byte by byte.
func secured(connection net.Conn, mine, theirs string, asClient bool) (net.Conn, error) {
	if *tlsDir == "" {
		return connection, nil
	}
	file := func(side, kind string) string { return filepath.Join(*tlsDir, side+"-A."+kind+".pem") }
	own, err := tls.LoadX509KeyPair(file(mine, "crt"), file(mine, "key"))
	if err != nil {
		return nil, err
	}
	pinned, err := tls.LoadX509KeyPair(file(theirs, "crt"), file(theirs, "key"))
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{own},
		ClientAuth:         tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // no names and no authorities: the pin below decides
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 || !bytes.Equal(raw[0], pinned.Certificate[0]) {
				return errors.New("the certificate is not the pinned one")
			}
			return nil
		},
	}
	layer := tls.Server(connection, c)
	if asClient {
		layer = tls.Client(connection, c)
	}
	return layer, layer.Handshake()
}

// ---------------------------------------------------------------------------------------------- server

func server() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	number := listener.Addr().(*net.TCPAddr).Port
	if err := os.WriteFile(*portfile+".new", []byte(strconv.Itoa(number)), 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(*portfile+".new", *portfile); err != nil { // appears whole
		return "", err
	}
	connection, err := listener.Accept()
	if err != nil {
		return "", err
	}
	listener.Close()
	connection, err = secured(connection, "responder", "driver", false)
	if err != nil {
		return "", err
	}
	session, err := yamux.Server(connection, config())
	if err != nil {
		return "", err
	}
	var running sync.WaitGroup
	var mutex sync.Mutex
	var first error
	streams := 0
	for {
		stream, err := session.AcceptStream()
		if err == io.EOF || errors.Is(err, yamux.ErrSessionShutdown) {
			break
		}
		if err != nil {
			return "", err
		}
		streams++
		running.Add(1)
		go func() {
			defer running.Done()
			// A stream that its client resets or leaves ends with an error here; that is no fault.
			if err := serve(session, stream); err != nil && !gone(err) {
				mutex.Lock()
				if first == nil {
					first = err
				}
				mutex.Unlock()
			}
		}()
	}
	running.Wait()
	return fmt.Sprintf("%d streams", streams), first
}

func gone(err error) bool {
	for _, known := range []error{yamux.ErrConnectionReset, yamux.ErrStreamClosed, yamux.ErrSessionShutdown, io.EOF} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

func serve(session *yamux.Session, stream *yamux.Stream) error {
	defer stream.Close()
	in := bufio.NewReader(stream)
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	word, argument, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch word {
	case "ECHO":
		_, err := io.Copy(stream, in)
		return err
	case "SLOW":
		ms, err := strconv.Atoi(argument)
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(ms) * time.Millisecond)
		return answerHash(stream, in)
	case "HASH":
		return answerHash(stream, in)
	case "RESET":
		_, err := io.WriteString(stream, "CANT\n")
		return err
	case "PING":
		took, err := session.Ping()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stream, "PONG %d\n", took.Microseconds())
		return err
	case "GOAWAY":
		if _, err := io.WriteString(stream, "OK\n"); err != nil {
			return err
		}
		return session.GoAway()
	}
	return fmt.Errorf("no YTP/1 line: %q", line)
}

func answerHash(stream *yamux.Stream, in io.Reader) error {
	hash := sha256.New()
	size, err := io.Copy(hash, in)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stream, "%x %d\n", hash.Sum(nil), size); err != nil {
		return err
	}
	_, err = stream.Write(tail())
	return err
}

// ---------------------------------------------------------------------------------------------- client

func client() (string, error) {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		return "", err
	}
	connection, err = secured(connection, "driver", "responder", true)
	if err != nil {
		return "", err
	}
	session, err := yamux.Client(connection, config())
	if err != nil {
		return "", err
	}
	var notes []string
	for _, scenario := range []struct {
		name string
		run  func(*yamux.Session) (string, error)
	}{
		{"echo", manyEchoes}, {"halfclose", halfClose}, {"leave", leave}, {"srvreset", serverReset},
		{"openclose", openAndClose}, {"ping", ping}, {"unread", unread}, {"oneway", oneWay}, {"goaway", goAway},
	} {
		note, err := scenario.run(session)
		if err != nil {
			return "", fmt.Errorf("%s: %w", scenario.name, err)
		}
		notes = append(notes, scenario.name+note)
	}
	session.Close()
	return strings.Join(notes, " "), nil
}

func open(session *yamux.Session, line string) (*yamux.Stream, error) {
	stream, err := session.OpenStream()
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(stream, line+"\n")
	return stream, err
}

// Reads on through the early EOFs that a closed write side makes (see the head of this file).
type patient struct{ stream *yamux.Stream }

func (p patient) Read(buffer []byte) (int, error) {
	for {
		n, err := p.stream.Read(buffer)
		if n > 0 || err != io.EOF {
			return n, err
		}
		time.Sleep(time.Millisecond) // --limit ends this if the answer never comes
	}
}

func pattern(size int, seed int64) []byte {
	data := make([]byte, size)
	rand.New(rand.NewSource(seed)).Read(data)
	return data
}

// Sends data through an ECHO stream and compares what comes back, until the clean end of the stream.
func echo(session *yamux.Session, data []byte) error {
	stream, err := open(session, "ECHO")
	if err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := stream.Write(data)
		wrote <- err
	}()
	back := make([]byte, len(data))
	if _, err := io.ReadFull(stream, back); err != nil {
		return err
	}
	if err := <-wrote; err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return errors.New("what came back differs")
	}
	return stream.Close()
}

// Sends data, closes this side, and takes the hash and the tail that come only then.
func hash(session *yamux.Session, line string, data []byte) error {
	stream, err := open(session, line)
	if err != nil {
		return err
	}
	if _, err := stream.Write(data); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	want := append([]byte(fmt.Sprintf("%x %d\n", sha256.Sum256(data), len(data))), tail()...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(patient{stream}, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("the answer differs")
	}
	return nil
}

func each(total, atOnce int, run func(int) error) error {
	errs := make(chan error, total)
	slots := make(chan struct{}, atOnce)
	for i := 0; i < total; i++ {
		slots <- struct{}{}
		go func(i int) {
			errs <- run(i)
			<-slots
		}(i)
	}
	for i := 0; i < total; i++ {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func manyEchoes(session *yamux.Session) (string, error) {
	return "=50x512KiB", each(50, 50, func(i int) error { return echo(session, pattern(512<<10, int64(i))) })
}

func halfClose(session *yamux.Session) (string, error) {
	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 1 << 20} {
		if err := hash(session, "HASH", pattern(size, int64(size))); err != nil {
			return "", fmt.Errorf("%d bytes: %w", size, err)
		}
	}
	return "", hash(session, "SLOW 200", pattern(1<<20, 3))
}

// The client loses interest with bytes under way; the session has to live on.
func leave(session *yamux.Session) (string, error) {
	for i := 0; i < 20; i++ {
		stream, err := open(session, "ECHO")
		if err != nil {
			return "", err
		}
		if _, err := stream.Write(pattern(100000, int64(i))); err != nil {
			return "", err
		}
		if err := stream.Close(); err != nil {
			return "", err
		}
	}
	return "", echo(session, pattern(100000, 1))
}

func serverReset(session *yamux.Session) (string, error) {
	stream, err := open(session, "RESET")
	if err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(stream).ReadString('\n')
	stream.Close()
	switch {
	case errors.Is(err, yamux.ErrConnectionReset):
		return "=reset", echo(session, pattern(1000, 1))
	case answer == "CANT\n":
		return "=cant", echo(session, pattern(1000, 1))
	}
	return "", fmt.Errorf("wanted a reset or CANT, got %q and %v", answer, err)
}

func openAndClose(session *yamux.Session) (string, error) {
	return fmt.Sprintf("=%d", *count), each(*count, 32, func(i int) error { return echo(session, pattern(10, int64(i))) })
}

func ping(session *yamux.Session) (string, error) {
	if _, err := session.Ping(); err != nil {
		return "", err
	}
	stream, err := open(session, "PING")
	if err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(stream).ReadString('\n')
	if err != nil {
		return "", err
	}
	stream.Close()
	if !strings.HasPrefix(answer, "PONG ") && answer != "CANT\n" {
		return "", fmt.Errorf("wanted PONG or CANT, got %q", answer)
	}
	return "", nil
}

// One stream is written and not read, until both of its windows are full; those beside it go on. Then it is read.
func unread(session *yamux.Session) (string, error) {
	data := pattern(4<<20, 9)
	stream, err := open(session, "ECHO")
	if err != nil {
		return "", err
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := stream.Write(data)
		wrote <- err
	}()
	if err := each(4, 4, func(i int) error { return echo(session, pattern(1<<20, int64(i))) }); err != nil {
		return "", err
	}
	back := make([]byte, len(data))
	if _, err := io.ReadFull(stream, back); err != nil {
		return "", err
	}
	if err := <-wrote; err != nil {
		return "", err
	}
	if !bytes.Equal(back, data) {
		return "", errors.New("what came back late differs")
	}
	return "", stream.Close()
}

func oneWay(session *yamux.Session) (string, error) {
	data := pattern(*mib<<20, 11)
	started := time.Now()
	err := hash(session, "HASH", data)
	return fmt.Sprintf("=%.0fMiB/s", float64(*mib)/time.Since(started).Seconds()), err
}

// After a go-away no stream can be opened any more.
func goAway(session *yamux.Session) (string, error) {
	stream, err := open(session, "GOAWAY")
	if err != nil {
		return "", err
	}
	if answer, err := bufio.NewReader(stream).ReadString('\n'); answer != "OK\n" {
		return "", fmt.Errorf("wanted OK, got %q and %v", answer, err)
	}
	for { // it comes behind the answer; --limit ends this if it never comes
		late, err := session.OpenStream()
		if err != nil {
			return "", nil
		}
		late.Close()
		time.Sleep(5 * time.Millisecond)
	}
}
