import { Lazy } from 'cdk8s';
import { k8s } from 'cdk8s-plus-33';
import type { ContentConfigMap } from './content-config-map.ts';
import { canonicalBytes, type Resources, resourceRequirements } from './quantity.ts';
import type { SecretRef } from './secret-plan.ts';
import type { ServiceIdentity } from './service-identity.ts';
import { dnsLabel, InvalidPropError, pinnedImage, port } from './validate.ts';

/** User and group of every process of the platform; images give it an entry in /etc/passwd. */
export const RUN_AS = 10_001;

/**
 * The value of an environment variable: text, a key of a Secret, a field of the pod such as `status.podIP`, or text that
 * is complete only when every product is constructed (not in a Job, whose name is made of its content).
 */
export type EnvValue =
  | string
  | { readonly secret: SecretRef; readonly key: string }
  | { readonly field: string }
  | { readonly late: () => string };

/** Environment variables by name. */
export type Environment = Readonly<Record<string, EnvValue>>;

/** A Secret as files below a path. */
export interface SecretMount {
  readonly path: string;
  readonly secret: SecretRef;
}

/** A ConfigMap as files below a path. */
export interface FilesMount {
  readonly path: string;
  readonly config: ContentConfigMap;
}

/** A token that says which workload sends a request, good for one server only. */
export interface WorkloadToken {
  /** The service that it is shown to. */
  readonly target: string;
  /** What the service asks for as the audience. @default `somagent-<target>` */
  readonly audience?: string;
}

/** How the kubelet asks whether a container lives or may get traffic. */
export interface ProbeProps {
  /** `tcp` asks only for a connection: for servers whose protocol needs a client certificate. */
  readonly scheme: 'http' | 'https' | 'tcp';
  readonly port: number;
  /** Path to GET; unused for `tcp`. */
  readonly path?: string;
  /** @default 5 */
  readonly periodSeconds?: number;
  /** @default 3 */
  readonly timeoutSeconds?: number;
  /** @default 3 */
  readonly failureThreshold?: number;
}

/** The probes of a container. */
export interface Probes {
  /** May it get traffic? */
  readonly readiness: ProbeProps;
  /** Must it be restarted? @default never by a probe */
  readonly liveness?: ProbeProps;
  /**
   * Is it up for the first time? The other probes wait for it.
   * @default the readiness probe every 2 s for at most 5 minutes
   */
  readonly startup?: ProbeProps;
}

/** What a pod consists of. Security is not among the options: every pod runs under the `restricted` standard. */
export interface PodProps {
  /** Image with a tag or digest. */
  readonly image: string;
  /** Replaces the image's entry point. @default the image's own */
  readonly command?: readonly string[];
  readonly resources: Resources;
  /** @default none */
  readonly env?: Environment;
  /** Ports by name. @default none */
  readonly ports?: Readonly<Record<string, number>>;
  /** @default none */
  readonly secrets?: readonly SecretMount[];
  /** @default none */
  readonly files?: readonly FilesMount[];
  /**
   * Directories that may be written, and their size. They are empty at each start; a path below /dev/shm is memory.
   * @default { '/tmp': '64Mi' }, which is always added: the root file system is read-only
   */
  readonly scratch?: Readonly<Record<string, string>>;
  /** Paths of persistent volumes by the name of the claim template. @default none */
  readonly volumes?: Readonly<Record<string, string>>;
  /** Rights on the Kubernetes API. @default none, and no token in the pod */
  readonly serviceIdentity?: ServiceIdentity;
  /**
   * Services that the pod shows its workload identity to: a token for each at {@link workloadTokenPath}, renewed by the
   * kubelet long before its 10 minutes end. Source:
   * https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#serviceaccount-token-volume-projection
   * @default none
   */
  readonly workloadTokens?: readonly WorkloadToken[];
  /**
   * Lets the pod fetch the public keys of workload identities from the API server: a token for it and its authority
   * below /var/run/secrets/somagent/kubernetes, or in the directory where a server of others looks for them. Open the
   * way with `network.allowToApiServer()`.
   * @default false
   */
  readonly verifiesWorkloads?: boolean | { readonly directory: string };
  /** Further labels of the pods. @default none */
  readonly podLabels?: Readonly<Record<string, string>>;
  /** Seconds between SIGTERM and SIGKILL. @default 30 */
  readonly terminationGraceSeconds?: number;
}

interface PodTemplateProps extends PodProps {
  readonly name: string;
  /** ServiceAccount whose tokens are projected. @default that of `serviceIdentity`, else the namespace's own */
  readonly serviceAccount?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly probes?: Probes;
  readonly restartPolicy?: 'Never';
  readonly topologySpreadConstraints?: k8s.TopologySpreadConstraint[];
}

/** A pod template with the security defaults of the platform. Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted */
export function podTemplate(props: PodTemplateProps): k8s.PodTemplateSpec {
  const scratch = { '/tmp': '64Mi', ...props.scratch };
  const serviceAccount = props.serviceAccount ?? props.serviceIdentity?.name;
  return {
    metadata: { labels: { ...props.labels, ...props.podLabels } },
    spec: {
      automountServiceAccountToken: props.serviceIdentity !== undefined,
      ...(serviceAccount !== undefined && { serviceAccountName: serviceAccount }),
      // Service links put an environment variable per Service of the namespace into the pod: products trip over them.
      enableServiceLinks: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: RUN_AS,
        runAsGroup: RUN_AS,
        fsGroup: RUN_AS,
        fsGroupChangePolicy: 'OnRootMismatch',
        seccompProfile: { type: 'RuntimeDefault' },
      },
      ...(props.restartPolicy && { restartPolicy: props.restartPolicy }),
      ...(props.topologySpreadConstraints && { topologySpreadConstraints: props.topologySpreadConstraints }),
      terminationGracePeriodSeconds: props.terminationGraceSeconds ?? 30,
      containers: [container(props, scratch)],
      volumes: [
        ...secretVolumes(props),
        ...fileVolumes(props),
        ...scratchVolumes(scratch),
        ...tokenVolumes(props).map(({ name, projected }) => ({ name, projected })),
      ],
    },
  };
}

function container(props: PodTemplateProps, scratch: Readonly<Record<string, string>>): k8s.Container {
  return {
    name: props.name,
    image: pinnedImage(`image of ${props.name}`, props.image),
    imagePullPolicy: 'IfNotPresent',
    ...(props.command && { command: [...props.command] }),
    env: Object.entries(props.env ?? {}).map(([name, value]) => envVar(name, value)),
    ports: Object.entries(props.ports ?? {}).map(([name, value]) => ({
      name,
      containerPort: port(`port ${name} of ${props.name}`, value),
    })),
    resources: quantities(props.name, props.resources),
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    },
    volumeMounts: volumeMounts(props, scratch),
    ...probes(props.probes),
  };
}

function quantities(name: string, resources: Resources): k8s.ResourceRequirements {
  const { requests, limits } = resourceRequirements(`resources of ${name}`, resources);
  const typed = (amounts: Readonly<Record<string, string>>) =>
    Object.fromEntries(Object.entries(amounts).map(([key, amount]) => [key, k8s.Quantity.fromString(amount)]));
  return { requests: typed(requests), limits: typed(limits) };
}

function envVar(name: string, value: EnvValue): k8s.EnvVar {
  if (typeof value === 'string') return { name, value };
  if ('late' in value) return { name, value: Lazy.any({ produce: value.late }) };
  if ('field' in value) return { name, valueFrom: { fieldRef: { fieldPath: value.field } } };
  return { name, valueFrom: { secretKeyRef: { name: value.secret.name, key: value.key } } };
}

function volumeMounts(props: PodTemplateProps, scratch: Readonly<Record<string, string>>): k8s.VolumeMount[] {
  const mounts = [
    ...secretMounts(props).map(({ path }) => ({ name: volumeName(path), mountPath: path, readOnly: true })),
    ...(props.files ?? []).map(({ path }) => ({ name: volumeName(path), mountPath: path, readOnly: true })),
    ...Object.keys(scratch).map((path) => ({ name: volumeName(path), mountPath: path })),
    ...Object.entries(props.volumes ?? {}).map(([name, path]) => ({ name, mountPath: path })),
    ...tokenVolumes(props).map(({ name, mountPath }) => ({ name, mountPath, readOnly: true })),
  ];
  const repeated = mounts.find(({ mountPath }, index) => mounts.findIndex((m) => m.mountPath === mountPath) !== index);
  if (repeated === undefined) return mounts;
  throw new InvalidPropError(
    `mount path of ${props.name}`,
    repeated.mountPath,
    'each path once',
    'Mount one of the two elsewhere.',
  );
}

/** Connections may bring the same Secret to the same path more than once, the authority's certificate above all. */
function secretMounts(props: PodProps): readonly SecretMount[] {
  const seen = new Map<string, SecretMount>();
  for (const mount of props.secrets ?? []) seen.set(`${mount.path} ${mount.secret.name}`, mount);
  return [...seen.values()];
}

function secretVolumes(props: PodProps): k8s.Volume[] {
  return secretMounts(props).map(({ path, secret }) => ({
    name: volumeName(path),
    // Readable by the group only: Postgres refuses a private key that others can read.
    secret: { secretName: secret.name, defaultMode: 0o440 },
  }));
}

function fileVolumes(props: PodProps): k8s.Volume[] {
  return (props.files ?? []).map(({ path, config }) => ({
    name: volumeName(path),
    configMap: { name: config.name, defaultMode: 0o444 },
  }));
}

function scratchVolumes(scratch: Readonly<Record<string, string>>): k8s.Volume[] {
  return Object.entries(scratch).map(([path, size]) => {
    const medium = path.startsWith('/dev/shm') ? { medium: 'Memory' } : {};
    const sizeLimit = k8s.Quantity.fromString(canonicalBytes(`scratch ${path}`, size));
    return { name: volumeName(path), emptyDir: { ...medium, sizeLimit } };
  });
}

const TOKENS = '/var/run/secrets/somagent';
const TOKEN_SECONDS = 600;

/** Where the pod finds its token for a service. It changes: read it for each use. */
export const workloadTokenPath = (target: string): string => `${TOKENS}/${target}/token`;

/** Audience of the tokens that a service accepts. */
export const workloadAudience = (target: string): string => `somagent-${target}`;

interface TokenVolume {
  readonly name: string;
  readonly mountPath: string;
  readonly projected: k8s.ProjectedVolumeSource;
}

/** A volume per token: the kubelet renews each on its own, and a reader sees no token for another server. */
function tokenVolumes(props: PodProps): TokenVolume[] {
  const tokens = new Map((props.workloadTokens ?? []).map((token) => [token.target, token]));
  const volumes = [...tokens.values()].map(({ target, audience = workloadAudience(target) }) =>
    tokenVolume(`${TOKENS}/${dnsLabel('workloadTokens.target', target)}`, target, audience),
  );
  const { verifiesWorkloads = false } = props;
  if (verifiesWorkloads === false) return volumes;
  const directory = verifiesWorkloads === true ? `${TOKENS}/kubernetes` : verifiesWorkloads.directory;
  return [...volumes, tokenVolume(directory, 'kubernetes')];
}

/** Without an audience the token is for the API server, whose authority is put beside it. */
function tokenVolume(mountPath: string, target: string, audience?: string): TokenVolume {
  const token = {
    serviceAccountToken: { path: 'token', expirationSeconds: TOKEN_SECONDS, ...(audience && { audience }) },
  };
  const authority = { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } };
  const sources = audience === undefined ? [token, authority] : [token];
  return { name: `token-${target}`, mountPath, projected: { defaultMode: 0o440, sources } };
}

function volumeName(path: string): string {
  return path
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

function probes(props: Probes | undefined): Partial<k8s.Container> {
  if (props === undefined) return {};
  const startup = props.startup ?? { ...props.readiness, periodSeconds: 2, failureThreshold: 150 };
  return {
    startupProbe: probe(startup),
    readinessProbe: probe(props.readiness),
    ...(props.liveness && { livenessProbe: probe(props.liveness) }),
  };
}

function probe(props: ProbeProps): k8s.Probe {
  const target = k8s.IntOrString.fromNumber(port('probe port', props.port));
  const action =
    props.scheme === 'tcp'
      ? { tcpSocket: { port: target } }
      : { httpGet: { scheme: props.scheme.toUpperCase(), port: target, path: props.path ?? '/' } };
  return {
    ...action,
    periodSeconds: props.periodSeconds ?? 5,
    timeoutSeconds: props.timeoutSeconds ?? 3,
    failureThreshold: props.failureThreshold ?? 3,
  };
}
