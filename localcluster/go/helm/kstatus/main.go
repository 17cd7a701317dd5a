// kstatus says what Flux's and Helm's waiters make of objects: JSON documents on standard input, a line of JSON for each on standard
// output. It is the very library that both wait by, in the version that Helm is built with.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func main() {
	if err := tell(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func tell(in io.Reader, out io.Writer) error {
	documents, lines := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var document json.RawMessage
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(document); err != nil { // unlike encoding/json it keeps integers as such
			return err
		}
		result, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		if err := lines.Encode(map[string]string{"status": string(result.Status), "message": result.Message}); err != nil {
			return err
		}
	}
}
