// argocd-lua runs Lua of resource customisations as Argo CD does, in its own virtual machine: questions as JSON documents on standard
// input, a line of JSON for each on standard output.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// question names what is run over the object: "health", "discovery" or "action".
type question struct {
	Run    string          `json:"run"`
	Script string          `json:"script"`
	Object json.RawMessage `json:"object"`
}

func main() {
	if err := answer(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "argocd-lua:", err)
		os.Exit(1)
	}
}

func answer(in io.Reader, out io.Writer) error {
	documents, lines := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var asked question
		if err := documents.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		said, err := run(asked)
		if err != nil {
			return err
		}
		if err := lines.Encode(said); err != nil {
			return err
		}
	}
}

func run(asked question) (any, error) {
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(asked.Object); err != nil { // unlike encoding/json it keeps integers as such
		return nil, err
	}
	machine := lua.VM{} // without Lua's own libraries, as Argo CD runs what argocd-cm has
	switch asked.Run {
	case "health":
		return machine.ExecuteHealthLua(object, asked.Script)
	case "discovery":
		return machine.ExecuteResourceActionDiscovery(object, []string{asked.Script})
	case "action":
		changed, err := machine.ExecuteResourceAction(object, asked.Script, nil)
		if err != nil {
			return nil, err
		}
		objects := make([]map[string]any, 0, len(changed))
		for _, one := range changed {
			objects = append(objects, one.UnstructuredObj.Object)
		}
		return objects, nil
	}
	return nil, fmt.Errorf("there is no %q to run", asked.Run)
}
