// Command pause is the first process of a pod sandbox and of each of the test bed's boxes: it keeps
// the namespaces alive, reaps orphans and leaves on SIGTERM or SIGINT. It links nothing but the
// system call package, so that the one per pod stays small.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != nil || pid <= 0 {
				break
			}
		}
	}
}
