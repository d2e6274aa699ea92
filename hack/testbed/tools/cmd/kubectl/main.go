// Command kubectl stands alone because it is called often: inside kubebox each call would also pay
// for the package initialisation of every daemon.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

func main() {
	os.Exit(cli.Run(cmd.NewDefaultKubectlCommand()))
}
