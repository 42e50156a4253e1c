// A victim on hashicorp/yamux, which says and does what cepa's example mux_victim does:
//
//	hashicorp hold|discard|drop PORT
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/hashicorp/yamux"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: hashicorp hold|discard|drop PORT")
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	for {
		connection, err := listener.Accept()
		if err != nil {
			os.Exit(1)
		}
		go serve(os.Args[1], connection)
	}
}

func serve(mode string, connection net.Conn) {
	session, err := yamux.Server(connection, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	var held []net.Conn
	var reading sync.WaitGroup
	for {
		var stream net.Conn
		stream, err = session.Accept()
		if err != nil {
			break
		}
		switch mode {
		case "hold":
			held = append(held, stream)
		case "discard":
			reading.Add(1)
			go func() {
				defer reading.Done()
				read(stream)
			}()
		default:
			stream.Close()
			fmt.Fprintln(os.Stderr, "stream total 0 end=ERR dropped here")
		}
	}
	if errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "session end=clean")
	} else {
		fmt.Fprintln(os.Stderr, "session end=ERR", err)
	}
	for _, stream := range held {
		read(stream)
	}
	reading.Wait()
}

func read(stream net.Conn) {
	total, err := io.Copy(io.Discard, stream)
	if err == nil {
		fmt.Fprintf(os.Stderr, "stream total %d end=clean EOF\n", total)
	} else {
		fmt.Fprintf(os.Stderr, "stream total %d end=ERR %v\n", total, err)
	}
}
