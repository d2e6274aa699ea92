// Command probe is the traffic in the test bed's own tests: it answers, it keeps a UDP flow alive
// and tells the moments at which the flow was cut and healed, it connects once, it resolves a name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const usage = `usage:
  probe serve ADDRESS                     answer UDP datagrams and TCP connections with the host's name
  probe watch [-bind ADDRESS] HOST:PORT   one UDP flow, a datagram every 5 ms; prints its changes:
                                            up MILLISECONDS sent=COUNT    first datagram that came back
                                            down MILLISECONDS sent=COUNT  last one before 200 ms of silence
                                          (two of them with -bind, each the other's target, need no serve)
  probe ask HOST:PORT                     one datagram, a single one; waits 20 s for the answer, prints it
  probe connect HOST:PORT                 one TCP connection within 2 s; prints the answer
  probe resolve NAME                      the addresses of a name, one a line
`

func main() {
	if len(os.Args) < 3 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	commands := map[string]func([]string) error{"serve": serve, "watch": watch, "ask": ask, "connect": connect, "resolve": resolve}
	command, known := commands[os.Args[1]]
	if !known {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := command(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp4", args[0])
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp4", args[0])
	if err != nil {
		return err
	}
	go func() {
		for {
			stream, err := streams.Accept()
			if err == nil {
				fmt.Fprintln(stream, host)
				stream.Close()
			}
		}
	}()
	buffer := make([]byte, 2048)
	for {
		_, from, err := packets.ReadFrom(buffer)
		if err == nil {
			_, _ = packets.WriteTo([]byte(host), from)
		}
	}
}

const (
	interval = 5 * time.Millisecond
	silence  = 200 * time.Millisecond
)

func watch(args []string) error {
	flags := flag.NewFlagSet("watch", flag.ExitOnError)
	bind := flags.String("bind", ":0", "local address of the flow")
	_ = flags.Parse(args)
	peer, err := net.ResolveUDPAddr("udp4", flags.Arg(0))
	if err != nil {
		return err
	}
	socket, err := net.ListenPacket("udp4", *bind)
	if err != nil {
		return err
	}
	var last atomic.Int64
	go func() {
		buffer := make([]byte, 2048)
		for {
			if _, _, err := socket.ReadFrom(buffer); err == nil {
				last.Store(time.Now().UnixMilli())
			}
		}
	}()
	sent, up := 0, false
	for range time.Tick(interval) {
		// A refused or unreachable datagram is what a cut looks like from here, so it is no error.
		_, _ = socket.WriteTo([]byte("?"), peer)
		sent++
		heard := last.Load()
		if quiet := time.Since(time.UnixMilli(heard)) > silence; up == quiet {
			up = !quiet
			fmt.Printf("%s %d sent=%d\n", map[bool]string{true: "up", false: "down"}[up], heard, sent)
		}
	}
	return nil
}

func ask(args []string) error {
	socket, err := net.Dial("udp4", args[0])
	if err != nil {
		return err
	}
	defer socket.Close()
	if _, err := socket.Write([]byte("?")); err != nil {
		return err
	}
	_ = socket.SetReadDeadline(time.Now().Add(20 * time.Second))
	buffer := make([]byte, 256)
	n, err := socket.Read(buffer)
	if err != nil {
		return err
	}
	fmt.Println(string(buffer[:n]))
	return nil
}

func connect(args []string) error {
	stream, err := net.DialTimeout("tcp4", args[0], 2*time.Second)
	if err != nil {
		return err
	}
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(2 * time.Second))
	buffer := make([]byte, 256)
	n, err := stream.Read(buffer)
	if n == 0 {
		return errors.Join(errors.New("connected, but no answer"), err)
	}
	fmt.Print(string(buffer[:n]))
	return nil
}

func resolve(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, args[0])
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}
