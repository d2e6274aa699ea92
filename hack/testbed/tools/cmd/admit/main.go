// Command admit is the last CNI plugin of a pod's chain. It tells the network policy agent the
// address that the pod was given and returns once the rules for that address are in force on every
// node. Containers are started after that: so a policy holds from the pod's first packet, and a pod
// that no policy selects never sees one dropped.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// The agent may be in the middle of a start; a pod that waited this long is retried by the kubelet.
const patience = 20 * time.Second

// CNI's code for "try again later".
const tryAgain = 11

type config struct {
	CNIVersion string          `json:"cniVersion"`
	Socket     string          `json:"socket"`
	PrevResult json.RawMessage `json:"prevResult"`
}

type result struct {
	IPs []struct {
		Address string `json:"address"`
	} `json:"ips"`
}

func main() {
	switch os.Getenv("CNI_COMMAND") {
	case "VERSION":
		fmt.Println(`{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}`)
	case "ADD":
		var given config
		if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
			fail("1.0.0", fmt.Errorf("configuration: %w", err))
		}
		if err := add(given); err != nil {
			fail(given.CNIVersion, err)
		}
		fmt.Println(string(given.PrevResult))
	}
}

func add(given config) error {
	var earlier result
	if err := json.Unmarshal(given.PrevResult, &earlier); err != nil || len(earlier.IPs) == 0 {
		return fmt.Errorf("prevResult names no address (%v): admit must come after a plugin that gives one", err)
	}
	address, _, _ := strings.Cut(earlier.IPs[0].Address, "/")
	request := map[string]string{"ip": address}
	for pair := range strings.SplitSeq(os.Getenv("CNI_ARGS"), ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "K8S_POD_NAMESPACE":
			request["namespace"] = value
		case "K8S_POD_NAME":
			request["name"] = value
		}
	}
	return ask(given.Socket, request)
}

func ask(socket string, request map[string]string) error {
	connection, err := net.DialTimeout("unix", socket, patience)
	if err != nil {
		return fmt.Errorf("the network policy agent does not answer: %w", err)
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(patience))
	if err := json.NewEncoder(connection).Encode(request); err != nil {
		return fmt.Errorf("the network policy agent went away: %w", err)
	}
	answer, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no rules for %s/%s within %v: %w", request["namespace"], request["name"], patience, err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return fmt.Errorf("the network policy agent refused: %s", answer)
	}
	return nil
}

func fail(version string, err error) {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"cniVersion": version, "code": tryAgain, "msg": "pod not admitted to the network", "details": err.Error(),
	})
	os.Exit(1)
}
