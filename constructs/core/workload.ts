import { k8s } from 'cdk8s-plus-33';
import { Construct } from 'constructs';
import { contentHash } from './content-hash.ts';
import { type Identity, objectLabels, selectorLabels } from './labels.ts';
import {
  type Environment,
  type PodProps,
  type Probes,
  podTemplate,
  type SecretMount,
  type WorkloadToken,
} from './pod.ts';
import { type Endpoint, PodNetwork } from './pod-network.ts';
import { canonicalBytes } from './quantity.ts';
import { placeOf } from './region-chart.ts';
import { cronSchedule, dnsLabel, integerBetween } from './validate.ts';

/** What a client of a server gets: variables and files. The network path is opened by {@link Connectable.connect}. */
export interface Connection {
  readonly env: Environment;
  readonly secrets: readonly SecretMount[];
  /** Tokens by which the client says who it is. @default none */
  readonly workloadTokens?: readonly WorkloadToken[];
}

/** A server that a workload can be wired to. */
export interface Connectable {
  /** Opens the network path from the client, asks for its credentials, and says how they are passed on. */
  connect(client: PodNetwork): Connection;
}

/** Options common to every workload. */
export interface WorkloadProps extends Identity, PodProps {
  /** Name of the object. @default `<instance>-<component>`, or the instance alone if both are equal */
  readonly name?: string;
  /** Servers it talks to: from each come the network policy, the credentials and the variables. @default none */
  readonly connections?: readonly Connectable[];
  /** Network group of the pods. @default one of its own */
  readonly network?: PodNetwork;
}

/** Pods under one name, one network policy and the platform's security defaults. */
abstract class Workload extends Construct {
  readonly name: string;
  readonly namespace: string;
  /** Labels that select exactly these pods. */
  readonly selector: Readonly<Record<string, string>>;
  readonly network: PodNetwork;
  protected readonly labels: Readonly<Record<string, string>>;
  protected readonly pod: PodProps & { readonly serviceAccount?: string };

  constructor(scope: Construct, id: string, props: WorkloadProps) {
    super(scope, id);
    this.name = dnsLabel('workload name', props.name ?? workloadName(props));
    this.namespace = placeOf(this).namespace;
    this.selector = selectorLabels(props);
    this.labels = objectLabels(this, props);
    this.network = props.network ?? new PodNetwork(this, 'network', { ...props, name: this.name });
    if (props.serviceIdentity) this.network.useServiceAccount(props.serviceIdentity.name);
    const connections = (props.connections ?? []).map((server) => server.connect(this.network));
    const workloadTokens = [
      ...connections.flatMap(({ workloadTokens: tokens = [] }) => tokens),
      ...(props.workloadTokens ?? []),
    ];
    const identified = workloadTokens.length > 0 || Boolean(props.verifiesWorkloads);
    this.pod = {
      ...props,
      ...(identified && { workloadTokens, serviceAccount: this.network.serviceAccount() }),
      env: Object.assign({}, ...connections.map(({ env }) => env), props.env),
      secrets: [...connections.flatMap(({ secrets }) => secrets), ...(props.secrets ?? [])],
    };
  }

  /** The pod of a task. */
  protected template(component: string): k8s.PodTemplateSpec {
    return podTemplate({ ...this.pod, name: component, labels: this.podLabels(), restartPolicy: 'Never' });
  }

  /** Labels of the pods: the object's own, and the one that puts them under the network policy. */
  protected podLabels(): Record<string, string> {
    return { ...this.labels, ...this.network.podLabels };
  }
}

/** Name of a workload: the instance's own name for its only or main component. */
function workloadName({ instance, component }: Pick<Identity, 'instance' | 'component'>): string {
  return instance === component ? instance : `${instance}-${component}`;
}

/** Options of {@link DeploymentWorkload}. */
export interface DeploymentWorkloadProps extends WorkloadProps {
  readonly probes: Probes;
  /** @default 1 */
  readonly replicas?: number;
  /**
   * Says nothing of the number of pods, so that whoever scales them is not set back by the next deployment.
   * @default false
   */
  readonly scaled?: boolean;
  /**
   * `Recreate` stops the old pod first: for pods that must not run twice.
   * @default 'RollingUpdate'
   */
  readonly strategy?: 'RollingUpdate' | 'Recreate';
}

/** Interchangeable pods. */
export class DeploymentWorkload extends Workload {
  constructor(scope: Construct, id: string, props: DeploymentWorkloadProps) {
    super(scope, id, props);
    const replicas = integerBetween(`replicas of ${this.name}`, props.replicas ?? 1, 1, 100);
    const { strategy = 'RollingUpdate', probes } = props;
    new k8s.KubeDeployment(this, 'deployment', {
      metadata: { name: this.name, labels: this.labels },
      spec: {
        ...(props.scaled !== true && { replicas }),
        revisionHistoryLimit: 2,
        // The first start of a machine pulls images and starts everything at once.
        progressDeadlineSeconds: 900,
        strategy: strategy === 'Recreate' ? { type: strategy } : rollingUpdate(),
        selector: { matchLabels: this.selector },
        template: podTemplate({
          ...this.pod,
          name: props.component,
          labels: this.podLabels(),
          probes,
          ...spread(replicas, this.selector),
        }),
      },
    });
    disruptionBudget(this, this.name, replicas, this.labels, this.selector);
  }
}

function rollingUpdate(): k8s.DeploymentStrategy {
  return {
    type: 'RollingUpdate',
    rollingUpdate: { maxUnavailable: k8s.IntOrString.fromNumber(0), maxSurge: k8s.IntOrString.fromNumber(1) },
  };
}

/** Options of {@link StatefulWorkload}. */
export interface StatefulWorkloadProps extends WorkloadProps {
  readonly probes: Probes;
  readonly replicas: number;
  /** Name of the headless Service that gives each pod its DNS name. */
  readonly serviceName: string;
  /** One claim per pod: name, size and class. */
  readonly claims: readonly VolumeClaim[];
}

/** A persistent volume of each pod. */
export interface VolumeClaim {
  /** Name of the volume; `volumes` of the pod says where it is mounted. */
  readonly name: string;
  /** Size, as a Kubernetes quantity. */
  readonly size: string;
  /** @default the cluster's default class */
  readonly storageClass?: string;
}

/** Pods with a name and a volume of their own. */
export class StatefulWorkload extends Workload {
  constructor(scope: Construct, id: string, props: StatefulWorkloadProps) {
    super(scope, id, props);
    const replicas = integerBetween(`replicas of ${this.name}`, props.replicas, 1, 100);
    new k8s.KubeStatefulSet(this, 'stateful-set', {
      metadata: { name: this.name, labels: this.labels },
      spec: {
        replicas,
        serviceName: props.serviceName,
        podManagementPolicy: 'Parallel',
        revisionHistoryLimit: 2,
        selector: { matchLabels: this.selector },
        template: podTemplate({
          ...this.pod,
          name: props.component,
          labels: this.podLabels(),
          probes: props.probes,
          ...spread(replicas, this.selector),
        }),
        volumeClaimTemplates: props.claims.map((claim) => this.#claim(claim)),
      },
    });
    disruptionBudget(this, this.name, replicas, this.labels, this.selector);
  }

  #claim({ name, size, storageClass }: VolumeClaim): k8s.KubePersistentVolumeClaimProps {
    return {
      metadata: { name, labels: { ...this.selector } },
      spec: {
        accessModes: ['ReadWriteOnce'],
        // Spelled out because the API server fills it in: a later comparison would see a difference.
        volumeMode: 'Filesystem',
        ...(storageClass !== undefined && { storageClassName: storageClass }),
        resources: { requests: { storage: k8s.Quantity.fromString(canonicalBytes(`size of volume ${name}`, size)) } },
      },
    };
  }
}

/** Options of {@link JobWorkload}. */
export interface JobWorkloadProps extends WorkloadProps {
  /**
   * Times that a failed pod is replaced. The jobs of the platform are idempotent; most failures are a server that is
   * not up yet.
   * @default 30
   */
  readonly retries?: number;
  /** Seconds after which the job counts as failed. @default 1800 */
  readonly deadlineSeconds?: number;
}

/** A task that runs to its end once. Its name carries the hash of its spec: a changed task is a new Job. */
export class JobWorkload extends Workload {
  /** Name of the Job object, hash included. */
  readonly jobName: string;

  constructor(scope: Construct, id: string, props: JobWorkloadProps) {
    super(scope, id, props);
    const spec = jobSpec(this.name, props, this.template(props.component));
    this.jobName = dnsLabel('job name', `${this.name}-${contentHash(spec)}`);
    new k8s.KubeJob(this, 'job', { metadata: { name: this.jobName, labels: this.labels }, spec });
  }
}

/** Options of {@link ScheduledWorkload}. */
export interface ScheduledWorkloadProps extends JobWorkloadProps {
  /** When, in the five fields of cron, in UTC. */
  readonly schedule: string;
  /**
   * Runs only when somebody starts it: `kubectl create job <name> --from=cronjob/<name>`.
   * @default false
   */
  readonly suspended?: boolean;
}

/** A task that runs to its end again and again, never twice at once. */
export class ScheduledWorkload extends Workload {
  constructor(scope: Construct, id: string, props: ScheduledWorkloadProps) {
    super(scope, id, props);
    new k8s.KubeCronJob(this, 'cron-job', {
      metadata: { name: this.name, labels: this.labels },
      spec: {
        schedule: cronSchedule(`schedule of ${this.name}`, props.schedule),
        timeZone: 'Etc/UTC',
        ...(props.suspended && { suspend: true }),
        concurrencyPolicy: 'Forbid',
        successfulJobsHistoryLimit: 1,
        failedJobsHistoryLimit: 1,
        jobTemplate: { spec: jobSpec(this.name, props, this.template(props.component)) },
      },
    });
  }
}

function jobSpec(name: string, props: JobWorkloadProps, template: k8s.PodTemplateSpec): k8s.JobSpec {
  return {
    backoffLimit: integerBetween(`retries of ${name}`, props.retries ?? 30, 0, 1000),
    activeDeadlineSeconds: props.deadlineSeconds ?? 1800,
    template,
  };
}

/** Options of {@link ServiceAddress}. */
export interface ServiceAddressProps extends Identity {
  readonly name: string;
  /** Ports by name. */
  readonly ports: Readonly<Record<string, number>>;
  /** The pods' labels. @default none: something else writes the Endpoints */
  readonly selector?: Readonly<Record<string, string>>;
  /** Gives each pod a DNS name, ready or not, instead of one shared address. @default false */
  readonly headless?: boolean;
  /** Opens the named port on every node. @default none */
  readonly nodePorts?: Readonly<Record<string, number>>;
}

/** A Service. */
export class ServiceAddress extends Construct {
  readonly name: string;
  /** DNS name within the cluster. */
  readonly host: string;

  constructor(scope: Construct, id: string, props: ServiceAddressProps) {
    super(scope, id);
    this.name = dnsLabel('service name', props.name);
    this.host = `${this.name}.${placeOf(this).namespace}.svc`;
    new k8s.KubeService(this, 'service', {
      metadata: {
        name: this.name,
        labels: objectLabels(this, props),
        // Awaiting a Service adds 10 s and never ends for one without pods; the workload behind it is awaited anyway.
        annotations: { 'pulumi.com/skipAwait': 'true' },
      },
      spec: {
        type: props.nodePorts === undefined ? 'ClusterIP' : 'NodePort',
        ...(props.headless && { clusterIp: 'None', publishNotReadyAddresses: true }),
        ...(props.selector && { selector: { ...props.selector } }),
        ports: Object.entries(props.ports).map(([name, port]) => ({
          name,
          port,
          targetPort: k8s.IntOrString.fromNumber(port),
          ...(props.nodePorts?.[name] !== undefined && { nodePort: props.nodePorts[name] }),
        })),
      },
    });
  }

  /** The address together with the pods behind it. */
  endpoint(port: number, network: PodNetwork): Endpoint {
    return { host: this.host, port, network };
  }
}

function spread(replicas: number, selector: Readonly<Record<string, string>>) {
  if (replicas === 1) return {};
  return {
    topologySpreadConstraints: ['kubernetes.io/hostname', 'topology.kubernetes.io/zone'].map((topologyKey) => ({
      maxSkew: 1,
      topologyKey,
      whenUnsatisfiable: 'ScheduleAnyway',
      labelSelector: { matchLabels: { ...selector } },
    })),
  };
}

function disruptionBudget(
  scope: Construct,
  name: string,
  replicas: number,
  labels: Readonly<Record<string, string>>,
  selector: Readonly<Record<string, string>>,
): void {
  if (replicas === 1) return;
  new k8s.KubePodDisruptionBudget(scope, 'disruption-budget', {
    metadata: { name, labels },
    spec: { maxUnavailable: k8s.IntOrString.fromNumber(1), selector: { matchLabels: { ...selector } } },
  });
}
