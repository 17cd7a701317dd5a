// Command network-policies judges the first packet of each connection of a pod by the cluster's NetworkPolicies.
//
// It is kube-network-policies as a library: upstream's own command puts rules into nftables that not every kernel takes, and
// then lets everything through. Here the rules are localcluster's (enforcement.py), and verdicts come from this queue alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "file with the API server's address and our identity")
	queue := flag.Int("queue", 98, "number of the netfilter queue")
	flag.Parse()
	if err := judge(*kubeconfig, *queue); err != nil {
		fmt.Fprintln(os.Stderr, "network-policies:", err)
		os.Exit(1)
	}
}

// judge works until it is asked to end; it fails if the queue cannot be opened or the API server cannot be read.
func judge(kubeconfig string, queue int) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	watched := informers.NewSharedInformerFactory(client, 0)
	// No node has this name, so upstream's own rules match no pod; verdicts do not depend on it. NRIdisabled stays false: where it is
	// set, the first packet of an unknown address ends the process by a nil pointer.
	controller, err := networkpolicy.NewController(
		client, watched.Networking().V1().NetworkPolicies(), watched.Core().V1().Namespaces(), watched.Core().V1().Pods(),
		nil, nil, nil, nil, networkpolicy.Config{NodeName: "none", QueueID: queue},
	)
	if err != nil {
		return err
	}
	watched.Start(ctx.Done())
	if err := controller.Run(ctx); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return errors.New("the queue was closed")
	}
	return nil
}
