// What runs inside the test pods, as one static program with two entrypoints.
//
//	pause     holds a sandbox, or devices, and does nothing
//	workload  prints its environment, sorted, one NAME=VALUE a line, then stays
//
// Both end at SIGTERM with status 0, so that a graceful deletion is as quick as the kubelet can make it. As process 1 of
// a pod's sandbox either may inherit the children of others, and collects them.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)

	switch {
	case len(os.Args) == 2 && os.Args[1] == "pause":
	case len(os.Args) == 2 && os.Args[1] == "workload":
		environment := os.Environ()
		slices.Sort(environment)
		for _, line := range environment {
			fmt.Println(line)
		}
	default:
		fmt.Fprintln(os.Stderr, "say what to be: pause or workload")
		os.Exit(2)
	}

	for {
		select {
		case <-ends:
			return
		case <-children:
			collect()
		}
	}
}

func collect() {
	for {
		if child, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || child <= 0 {
			return
		}
	}
}
