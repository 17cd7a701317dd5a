// flux-health says what Flux makes of objects by a Kustomization's healthCheckExprs: questions as JSON documents on standard input, a
// line of JSON for each on standard output. It is the evaluator that Flux's kustomize-controller waits by.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Expressions kustomize.HealthCheckExpressions `json:"expressions"`
	Object      json.RawMessage                  `json:"object"`
}

func main() {
	if err := tell(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "flux-health:", err)
		os.Exit(1)
	}
}

func tell(in io.Reader, out io.Writer) error {
	documents, lines := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var asked question
		if err := documents.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		said, err := status(asked)
		if err != nil {
			return err
		}
		if err := lines.Encode(map[string]string{"status": said}); err != nil {
			return err
		}
	}
}

func status(asked question) (string, error) {
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asked.Object); err != nil { // unlike encoding/json it keeps integers as such
		return "", err
	}
	evaluator, err := cel.NewStatusEvaluator(&asked.Expressions)
	if err != nil {
		return "", err
	}
	result, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return string(result.Status), nil
}
