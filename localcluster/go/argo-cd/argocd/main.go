// argocd is the part of Argo CD that ARGOCD_BINARY_NAME names, as in its own program: of all parts the two that compare and sync.
package main

import (
	"fmt"
	"os"

	controller "github.com/argoproj/argo-cd/v3/cmd/argocd-application-controller/commands"
	repository "github.com/argoproj/argo-cd/v3/cmd/argocd-repo-server/commands"
	"github.com/spf13/cobra"
)

var parts = map[string]func() *cobra.Command{
	"argocd-application-controller": controller.NewCommand,
	"argocd-repo-server":            repository.NewCommand,
}

func main() {
	name := os.Getenv("ARGOCD_BINARY_NAME")
	part, known := parts[name]
	if !known {
		fmt.Fprintf(os.Stderr, "argocd: ARGOCD_BINARY_NAME is %q; accepted are argocd-application-controller and argocd-repo-server\n", name)
		os.Exit(1)
	}
	if err := part().Execute(); err != nil {
		os.Exit(1) // cobra has said why
	}
}
