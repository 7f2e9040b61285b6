// Renders a chart as helm does, for tests where helm cannot be had: the same template engine (Go's), the same functions (Sprig and
// helm's own), the same rules for values. From Debian: golang-go, golang-github-masterminds-sprig-dev, golang-k8s-sigs-yaml-dev.
//
// Arguments: the chart's folder. Standard input: {"release", "namespace", "values": YAML}. Standard output: {"values": the merged
// ones, "files": {name: text}, "refused": why the templates took none of it, or ""}.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

type request struct {
	Release   string `json:"release"`
	Namespace string `json:"namespace"`
	Values    string `json:"values"`
}

// Of Chart.yaml what templates may ask for, under the names that helm gives it.
type chart struct {
	APIVersion  string `json:"apiVersion"`
	Name        string `json:"name"`
	Version     string `json:"version"`
	AppVersion  string `json:"appVersion"`
	Description string `json:"description"`
	KubeVersion string `json:"kubeVersion"`
	Type        string `json:"type"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: render CHART")
	}
	folder := os.Args[1]
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var asked request
	if err := json.Unmarshal(input, &asked); err != nil {
		return err
	}
	var about chart
	values, given := map[string]interface{}{}, map[string]interface{}{}
	if err := readYAML(filepath.Join(folder, "Chart.yaml"), &about); err != nil {
		return err
	}
	if err := readYAML(filepath.Join(folder, "values.yaml"), &values); err != nil {
		return err
	}
	if err := yaml.Unmarshal([]byte(asked.Values), &given); err != nil {
		return err
	}
	overlay(values, given)
	top := map[string]interface{}{
		"Chart":  about,
		"Values": values,
		"Release": map[string]interface{}{
			"Name": asked.Release, "Namespace": asked.Namespace, "Service": "Helm",
			"IsInstall": true, "IsUpgrade": false, "Revision": 1,
		},
		"Template": map[string]interface{}{"BasePath": about.Name + "/templates"},
	}
	refused := ""
	files, err := render(folder, top)
	if err != nil {
		files, refused = map[string]string{}, err.Error()
	}
	answer := map[string]interface{}{"values": values, "files": files, "refused": refused}
	return json.NewEncoder(os.Stdout).Encode(answer)
}

func readYAML(path string, into interface{}) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(text, into)
}

// Tables are merged, everything else takes the place of what was there, and null takes it away.
func overlay(values, given map[string]interface{}) {
	for name, value := range given {
		inner, isTable := value.(map[string]interface{})
		below, wasTable := values[name].(map[string]interface{})
		switch {
		case value == nil:
			delete(values, name)
		case isTable && wasTable:
			overlay(below, inner)
		default:
			values[name] = value
		}
	}
}

func render(folder string, top map[string]interface{}) (map[string]string, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "templates", "*"))
	if err != nil {
		return nil, err
	}
	sort.Strings(paths)
	all := template.New("chart").Option("missingkey=zero")
	all.Funcs(functions(all))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if _, err := all.New(filepath.Base(path)).Parse(string(text)); err != nil {
			return nil, err
		}
	}
	files := map[string]string{}
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		if err := all.ExecuteTemplate(&out, name, top); err != nil {
			return nil, err
		}
		// As helm does, since the option above has no effect on tables of any value.
		files[name] = strings.ReplaceAll(out.String(), "<no value>", "")
	}
	return files, nil
}

func functions(all *template.Template) template.FuncMap {
	functions := sprig.TxtFuncMap()
	delete(functions, "env")
	delete(functions, "expandenv")
	depth := 0
	functions["include"] = func(name string, data interface{}) (string, error) {
		if depth++; depth > 100 {
			return "", fmt.Errorf("%s includes itself", name)
		}
		defer func() { depth-- }()
		var out strings.Builder
		err := all.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	functions["required"] = func(told string, value interface{}) (interface{}, error) {
		if text, isText := value.(string); value == nil || isText && text == "" {
			return value, fmt.Errorf("%s", told)
		}
		return value, nil
	}
	functions["fail"] = func(told string) (string, error) { return "", fmt.Errorf("%s", told) }
	functions["toYaml"] = func(value interface{}) string {
		text, err := yaml.Marshal(value)
		if err != nil {
			return ""
		}
		return strings.TrimSuffix(string(text), "\n")
	}
	return functions
}
