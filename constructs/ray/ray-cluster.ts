import { ApiObject } from 'cdk8s';
import { k8s } from 'cdk8s-plus-33';
import { Construct } from 'constructs';
import { instanceName, objectLabels, selectorLabels } from '../core/labels.ts';
import { type Environment, type Probes, podTemplate, type SecretMount } from '../core/pod.ts';
import { type ApiServerAddress, PodNetwork } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { placeOf } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { InvalidPropError, integerBetween, oneOf } from '../core/validate.ts';
import { DeploymentWorkload, ServiceAddress } from '../core/workload.ts';

const renderers = ['pods', 'kuberay'] as const;
/** Port on which nodes join: Ray's global control service. */
const GCS = 6379;
/** Port of a worker's node manager. */
const NODE_MANAGER = 8076;
const DASHBOARD = 8265;
/** Port of Serve's own proxy, which only the operator asks, and only for its health: no application has a route there. */
const PROXY = 8002;
const TOKEN = '/secrets/ray-token';

/** `kuberay`: a RayService for the operator. `pods`: the same nodes as plain Deployments, where there is no operator. */
export type RayRenderer = (typeof renderers)[number];

/** The application that the cluster serves. */
export interface RayApplication {
  /** Name of the application in Serve. */
  readonly name: string;
  /** Python path of the application or its builder, `module:attribute`. */
  readonly importPath: string;
  /** Command of the head where no operator starts Ray: starts the node, deploys the application, serves until SIGTERM. */
  readonly headCommand: readonly string[];
  /** Port of the head on which the application itself answers. */
  readonly port: number;
  readonly probes: Probes;
}

/** Options of {@link RayCluster}. */
export interface RayClusterProps {
  /** Image with Ray and the application. */
  readonly image: string;
  /** Version of Ray in the image. @default '2.60.0' */
  readonly rayVersion?: string;
  /** Where the cluster's token is asked for. */
  readonly plan: SecretPlan;
  readonly application: RayApplication;
  /** @default 'pods' */
  readonly renderer?: RayRenderer;
  /** Nodes beside the head. Replicas of the application come and go within them. @default 0 */
  readonly workers?: number;
  /**
   * Most nodes beside the head, when replicas find no room: the operator then adds nodes and removes them when they are
   * idle. Plain pods don't grow: their renderer refuses it.
   * @default as many as `workers`
   */
  readonly maxWorkers?: number;
  /** Variables of every node. @default none */
  readonly env?: Environment;
  /** Secrets of every node. @default none */
  readonly secrets?: readonly SecretMount[];
  /** Where the Kubernetes API is, for an application that verifies workloads with its keys. @default it verifies none */
  readonly workloadKeys?: ApiServerAddress;
  /** Of the head. @default 200m and 1Gi promised, 1536Mi at most */
  readonly headResources?: Resources;
  /** Of each worker. @default 100m and 768Mi promised, 1280Mi at most */
  readonly workerResources?: Resources;
  /** Namespace of the KubeRay operator, which is admitted to the dashboard. @default 'kuberay-system' */
  readonly operatorNamespace?: string;
}

const HEAD: Resources = { cpu: '200m', memory: '1Gi', memoryLimit: '1536Mi' };
const WORKER: Resources = { cpu: '100m', memory: '768Mi', memoryLimit: '1280Mi' };
/** The operator's autoscaler, a container beside the head. */
const AUTOSCALER = {
  idleTimeoutSeconds: 120,
  resources: { requests: { cpu: '30m', memory: '256Mi' }, limits: { cpu: '200m', memory: '512Mi' } },
  securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
};
/** Sessions' files; the object store is small because prompts and answers are. */
const SCRATCH = { '/tmp': '1Gi', '/dev/shm': '128Mi' };

/** A Ray cluster with one Serve application; nodes admit only holders of the cluster's token. */
export class RayCluster extends Construct {
  /** Labels of the pods that answer requests. */
  readonly selector: Readonly<Record<string, string>>;
  readonly network: PodNetwork;
  readonly #instance: string;
  readonly #props: RayClusterProps;
  readonly #workers: number;
  readonly #maxWorkers: number;

  constructor(scope: Construct, id: string, props: RayClusterProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#props = props;
    this.#workers = integerBetween('workers', props.workers ?? 0, 0, 100);
    this.#maxWorkers = integerBetween('maxWorkers', props.maxWorkers ?? this.#workers, this.#workers, 100);
    this.selector = selectorLabels(this.#identity('head'));
    this.network = new PodNetwork(this, 'network', { ...this.#identity('cluster'), name: this.#instance });
    // Nodes choose the ports of their workers, stores and agents themselves.
    this.network.allowWithin();
    if (props.workloadKeys !== undefined) this.network.allowToApiServer(props.workloadKeys);
    if (oneOf('renderer', props.renderer ?? 'pods', renderers) === 'kuberay') this.#renderOperator();
    else this.#renderPods();
  }

  #identity(component: string) {
    return { product: 'ray', instance: this.#instance, component };
  }

  #node() {
    return {
      image: this.#props.image,
      env: {
        RAY_USAGE_STATS_ENABLED: '0',
        HOME: '/tmp',
        OMP_NUM_THREADS: '1',
        POD_IP: { field: 'status.podIP' },
        ...this.#props.env,
      },
      secrets: this.#props.secrets ?? [],
      verifiesWorkloads: this.#props.workloadKeys !== undefined,
      scratch: SCRATCH,
      terminationGraceSeconds: 40,
    };
  }

  /** A node that joins with a token of ours; the operator brings its own. */
  #tokenNode() {
    const node = this.#node();
    const token = this.#props.plan.token(`${this.#instance}-ray-token`, placeOf(this).namespace);
    return {
      ...node,
      env: { ...node.env, RAY_AUTH_MODE: 'token', RAY_AUTH_TOKEN_PATH: `${TOKEN}/token` },
      secrets: [{ path: TOKEN, secret: token }, ...node.secrets],
    };
  }

  #renderPods(): void {
    const { application, headResources = HEAD } = this.#props;
    if (this.#maxWorkers > this.#workers) {
      const fix = `Set workers to ${this.#maxWorkers}, or renderer to "kuberay".`;
      throw new InvalidPropError(
        'maxWorkers',
        String(this.#maxWorkers),
        `${this.#workers} with the renderer "pods"`,
        fix,
      );
    }
    const address = new ServiceAddress(this, 'head-address', {
      ...this.#identity('head'),
      name: `${this.#instance}-head`,
      ports: { gcs: GCS },
      selector: this.selector,
      headless: true,
    });
    const head = new DeploymentWorkload(this, 'head', {
      ...this.#identity('head'),
      ...this.#tokenNode(),
      command: application.headCommand,
      network: this.network,
      ports: { https: application.port, gcs: GCS },
      resources: headResources,
      // Two heads at once are two clusters.
      strategy: 'Recreate',
      probes: application.probes,
    });
    if (this.#workers > 0) this.#renderWorkers(address.host).node.addDependency(head);
  }

  #renderWorkers(headHost: string): DeploymentWorkload {
    return new DeploymentWorkload(this, 'worker', {
      ...this.#identity('worker'),
      ...this.#tokenNode(),
      command: [
        // The module, not the script `ray`: a script names the interpreter of the machine that installed it.
        ...['python3', '-m', 'ray.scripts.scripts', 'start'],
        ...[`--address=${headHost}:${GCS}`, '--node-ip-address=$(POD_IP)', '--num-cpus=1'],
        ...[`--object-store-memory=${80 * 2 ** 20}`],
        ...[`--node-manager-port=${NODE_MANAGER}`, '--block'],
      ],
      network: this.network,
      ports: { node: NODE_MANAGER },
      replicas: this.#workers,
      resources: this.#props.workerResources ?? WORKER,
      probes: { readiness: { scheme: 'tcp', port: NODE_MANAGER } },
    });
  }

  /** Source: https://docs.ray.io/en/latest/cluster/kubernetes/getting-started/rayservice-quick-start.html */
  #renderOperator(): void {
    const { application, rayVersion = '2.60.0', headResources = HEAD, workerResources = WORKER } = this.#props;
    this.network.allowFromNamespace(this.#props.operatorNamespace ?? 'kuberay-system', [DASHBOARD, PROXY]);
    new ApiObject(this, 'service', {
      apiVersion: 'ray.io/v1',
      kind: 'RayService',
      metadata: { name: this.#instance, labels: objectLabels(this, this.#identity('cluster')) },
      spec: {
        serveConfigV2: JSON.stringify(serveConfig(application)),
        rayClusterConfig: {
          rayVersion,
          // The operator generates the token, keeps it in a Secret and gives it to every node.
          authOptions: { mode: 'token' },
          ...(this.#grows && { enableInTreeAutoscaling: true, autoscalerOptions: AUTOSCALER }),
          headGroupSpec: {
            rayStartParams: { 'dashboard-host': '0.0.0.0', 'num-cpus': '1', ...storeSize(headResources) },
            template: this.#operatorPod('head', headResources),
          },
          workerGroupSpecs: this.#maxWorkers === 0 ? [] : [this.#workerGroup(workerResources)],
        },
      },
    });
  }

  #workerGroup(resources: Resources) {
    return {
      groupName: 'workers',
      replicas: this.#workers,
      minReplicas: this.#workers,
      maxReplicas: this.#maxWorkers,
      rayStartParams: { 'num-cpus': '1', 'node-manager-port': String(NODE_MANAGER), ...storeSize(resources) },
      template: this.#operatorPod('worker', resources),
    };
  }

  #operatorPod(component: 'head' | 'worker', resources: Resources) {
    const head = { https: this.#props.application.port, serve: PROXY, gcs: GCS, dashboard: DASHBOARD };
    const template = podTemplate({
      ...this.#node(),
      ...(this.#props.workloadKeys !== undefined && { serviceAccount: this.network.serviceAccount() }),
      name: component,
      labels: { ...objectLabels(this, this.#identity(component)), ...this.network.podLabels },
      resources,
      ports: component === 'head' ? head : { node: NODE_MANAGER },
      // The operator deploys the application once the node is ready: readiness can't ask for the application.
      probes: { readiness: { scheme: 'tcp', port: component === 'head' ? GCS : NODE_MANAGER } },
    });
    const json = k8s.toJson_PodTemplateSpec(template);
    // The operator puts its autoscaler beside the head and binds the pod's account to the right to resize this cluster.
    if (json !== undefined && component === 'head' && this.#grows) json.spec.automountServiceAccountToken = true;
    return json;
  }

  get #grows(): boolean {
    return this.#maxWorkers > this.#workers;
  }
}

function serveConfig({ name, importPath }: RayApplication) {
  return {
    proxy_location: 'HeadOnly',
    http_options: { host: '0.0.0.0', port: PROXY },
    applications: [{ name, import_path: importPath, route_prefix: null }],
  };
}

/** Ray takes 30 % of the memory for its store by default; a twelfth is plenty for text. */
function storeSize({ memory }: Resources): Record<string, string> {
  return { 'object-store-memory': String(Math.max(80 * 2 ** 20, Math.floor(bytesOf('memory', memory) / 12))) };
}
