// argocd-redis is a Redis in memory for the Argo CD of tests, at the address that it is given.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "argocd-redis:", err)
		os.Exit(1)
	}
}

func serve(arguments []string) error {
	if len(arguments) != 1 {
		return fmt.Errorf("give one address, such as 127.0.0.1:6379; found %d", len(arguments))
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(arguments[0]); err != nil {
		return err
	}
	defer server.Close()
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	clock := time.NewTicker(time.Second) // its keys age only by being told so
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			server.FastForward(time.Second)
		case <-end:
			return nil
		}
	}
}
