// Command storage provisions the volumes of the local cluster: a folder of the node for each claim, as a `local`
// PersistentVolume.
//
// The controller manager's own host path provisioner is not used: its folders belong to root and are closed to others,
// a `hostPath` volume ignores fsGroup, and so no pod without root could write. The kubelet applies fsGroup to `local`
// volumes. Sizes are recorded, not enforced: the folders share the node's disk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// provisionerName is what a StorageClass names.
const provisionerName = "somagent.dev/storage"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("storage", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "path of a kubeconfig")
	node := flags.String("node", "", "name of this node")
	directory := flags.String("directory", "", "folder that holds the volumes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kubeconfig == "" || *node == "" || *directory == "" {
		return errors.New("storage: --kubeconfig, --node and --directory are required; see --help")
	}
	if err := os.MkdirAll(*directory, 0o711); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	folders := &folders{directory: *directory, node: *node}
	// One node has one provisioner: an election would only delay the first volume.
	controller.NewProvisionController(ctx, client, provisionerName, folders, controller.LeaderElection(false)).Run(ctx)
	return nil
}

// folders gives each claim a folder below directory.
type folders struct {
	directory string
	node      string
}

// Provision makes the folder and describes it. Called again after a kill it finds the folder and goes on.
func (f *folders) Provision(_ context.Context, options controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if options.PVC.Spec.Selector != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("claim %s/%s: spec.selector is not supported; remove it", options.PVC.Namespace, options.PVC.Name)
	}
	path := filepath.Join(f.directory, options.PVName)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	// Whoever the pod runs as may make files here, as on a fresh disk; no one else reaches the folder: its parent is
	// closed to listing and the names are not to be guessed. MkdirAll would apply the umask.
	if err := os.Chmod(path, 0o1777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	return f.volume(path, options), controller.ProvisioningFinished, nil
}

func (f *folders) volume(path string, options controller.ProvisionOptions) *v1.PersistentVolume {
	mode := v1.PersistentVolumeFilesystem
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   options.PVC.Spec.AccessModes,
			VolumeMode:                    &mode,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: options.PVC.Spec.Resources.Requests[v1.ResourceStorage]},
			PersistentVolumeSource:        v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}},
			NodeAffinity:                  &v1.VolumeNodeAffinity{Required: onNode(f.node)},
		},
	}
}

func onNode(name string) *v1.NodeSelector {
	here := v1.NodeSelectorRequirement{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{name}}
	return &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{here}}}}
}

// Delete removes the folder of a released volume.
func (f *folders) Delete(_ context.Context, volume *v1.PersistentVolume) error {
	path := filepath.Join(f.directory, volume.Name)
	if volume.Spec.Local == nil || volume.Spec.Local.Path != path {
		return &controller.IgnoredError{Reason: "the volume is not a folder of this node"}
	}
	return os.RemoveAll(path)
}
