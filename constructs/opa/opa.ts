import { type ApiObject, JsonPatch } from 'cdk8s';
import { k8s } from 'cdk8s-plus-33';
import { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { instanceName, objectLabels } from '../core/labels.ts';
import type { ApiServerAddress } from '../core/pod-network.ts';
import { bytesOf, type Resources } from '../core/quantity.ts';
import { placeOf, REGION_LABEL } from '../core/region-chart.ts';
import type { SecretPlan } from '../core/secret-plan.ts';
import { ServiceIdentity } from '../core/service-identity.ts';
import { DeploymentWorkload, JobWorkload, ServiceAddress } from '../core/workload.ts';

const HTTPS = 8443;
const REVIEW = '/v0/data/soma/deploy/admission/review';
const SERVER: Resources = { cpu: '30m', memory: '64Mi', memoryLimit: '192Mi' };

/** Options of {@link Opa}. */
export interface OpaProps {
  /** Image `somagent/opa`. */
  readonly image: string;
  /** Image `somagent/bootstrap`, whose Job puts the webhook in force. */
  readonly bootstrapImage: string;
  /** Where the certificate is asked for. */
  readonly plan: SecretPlan;
  /** The only registries that images of this environment may come from, without scheme. */
  readonly registries: readonly string[];
  /** Where the Kubernetes API is. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
  /** Number of pods. @default 1; while none answers, no pod of the region can be made */
  readonly replicas?: number;
  /** Of each pod. @default 30m and 64Mi promised, 192Mi at most */
  readonly resources?: Resources;
}

/**
 * Admission by the deploy policy: what a preview refuses, the API server refuses too. It stands in the plane `system`,
 * whose objects it never judges: what carries the platform must be able to start without it.
 * Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
 */
export class Opa extends Construct {
  /** DNS name within the cluster. */
  readonly host: string;
  /** Name of the ValidatingWebhookConfiguration. */
  readonly configurationName: string;
  readonly #instance: string;
  readonly #plan: SecretPlan;

  constructor(scope: Construct, id: string, props: OpaProps) {
    super(scope, id);
    this.#instance = instanceName(this);
    this.#plan = props.plan;
    this.configurationName = `somagent-${placeOf(this).region}-${this.#instance}`;
    const address = this.#address();
    this.host = address.host;
    const server = this.#server(props);
    const configuration = this.#configuration();
    this.#activation(props, server).node.addDependency(server, configuration);
  }

  #identity(component: string) {
    return { product: 'opa', instance: this.#instance, component };
  }

  #address(): ServiceAddress {
    return new ServiceAddress(this, 'address', {
      ...this.#identity('server'),
      name: this.#instance,
      ports: { https: HTTPS },
      selector: { 'app.kubernetes.io/instance': this.#instance, 'app.kubernetes.io/component': 'server' },
    });
  }

  #server(props: OpaProps): DeploymentWorkload {
    const { resources = SERVER } = props;
    const environment = new ContentConfigMap(this, 'environment', {
      ...this.#identity('server'),
      name: `${this.#instance}-environment`,
      files: { 'environment.json': JSON.stringify({ registries: props.registries }) },
    });
    const certificate = this.#plan.certificate(
      `${this.#instance}-tls`,
      { commonName: this.#instance, dnsNames: [this.#instance, this.host], ipAddresses: [], usages: ['server'] },
      placeOf(this).namespace,
    );
    const memory = bytesOf('memoryLimit', resources.memoryLimit ?? resources.memory);
    // The certificate is read again when it is renewed. Nobody but the API server's reviews gets through `system.authz`.
    const tls = ['--tls-cert-file', '/secrets/tls/tls.crt', '--tls-private-key-file', '/secrets/tls/tls.key'];
    const server = new DeploymentWorkload(this, 'server', {
      ...this.#identity('server'),
      name: this.#instance,
      image: props.image,
      command: [
        'opa',
        'run',
        '--server',
        '--addr',
        `:${HTTPS}`,
        ...tls,
        '--tls-cert-refresh-period',
        '1m',
        '--authorization',
        'basic',
        '--skip-version-check',
        '--log-level',
        'error',
        '/policies',
        'environment:/etc/opa/environment.json',
      ],
      // The collector works harder before the limit is reached instead of being killed at it.
      env: { GOMEMLIMIT: `${Math.floor((memory / 2 ** 20) * 0.9)}MiB` },
      ports: { https: HTTPS },
      files: [{ path: '/etc/opa', config: environment }],
      secrets: [{ path: '/secrets/tls', secret: certificate }],
      replicas: props.replicas ?? 1,
      resources,
      probes: {
        readiness: { scheme: 'https', port: HTTPS, path: '/health' },
        liveness: { scheme: 'https', port: HTTPS, path: '/health', periodSeconds: 10 },
      },
    });
    // The API server is no pod, so that no label can admit it.
    server.network.allowFromAnywhere(HTTPS);
    server.node.addDependency(environment);
    return server;
  }

  /** Empty here: the Job writes the webhooks, because only the cluster knows the authority. */
  #configuration(): Construct {
    const object = new k8s.KubeValidatingWebhookConfiguration(this, 'configuration', {
      metadata: { name: this.configurationName, labels: objectLabels(this, this.#identity('admission')) },
    });
    return clusterWide(object);
  }

  #activation(props: OpaProps, server: DeploymentWorkload): JobWorkload {
    const plan = new ContentConfigMap(this, 'plan', {
      ...this.#identity('admission'),
      name: `${this.#instance}-admission-plan`,
      files: { 'plan.json': JSON.stringify(this.#admissionPlan(), undefined, 2) },
    });
    const identity = new ServiceIdentity(this, 'identity', {
      ...this.#identity('admission'),
      name: `${this.#instance}-admission`,
      rules: [],
    });
    const rights = this.#rights(identity.name);
    const { namespace } = placeOf(this);
    const job = new JobWorkload(this, 'admission', {
      ...this.#identity('admission'),
      image: props.bootstrapImage,
      command: ['node', '/app/main.js', 'admission'],
      files: [{ path: '/etc/soma', config: plan }],
      secrets: [{ path: '/secrets/ca', secret: this.#plan.authorityCertificate(namespace) }],
      serviceIdentity: identity,
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    });
    job.network.allowToApiServer(props.apiServer);
    job.network.allowTo(server.network, [HTTPS]);
    job.node.addDependency(plan, identity, ...rights);
    return job;
  }

  /** The configuration belongs to no namespace, so a Role can't grant it; the right is to this one object. */
  #rights(account: string): Construct[] {
    const name = `${this.configurationName}-admission`;
    const metadata = { name, labels: objectLabels(this, this.#identity('admission')) };
    const role = new k8s.KubeClusterRole(this, 'cluster-role', {
      metadata,
      rules: [
        {
          apiGroups: ['admissionregistration.k8s.io'],
          resources: ['validatingwebhookconfigurations'],
          resourceNames: [this.configurationName],
          verbs: ['get', 'patch'],
        },
      ],
    });
    const binding = new k8s.KubeClusterRoleBinding(this, 'cluster-role-binding', {
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      subjects: [{ kind: 'ServiceAccount', name: account, namespace: placeOf(this).namespace }],
    });
    return [clusterWide(role), clusterWide(binding)];
  }

  #admissionPlan() {
    const { region, namespace } = placeOf(this);
    const rule = (apiGroup: string, resources: readonly string[]) => ({
      apiGroups: [apiGroup],
      apiVersions: ['v1'],
      resources,
      operations: ['CREATE', 'UPDATE'],
      scope: 'Namespaced',
    });
    return {
      configuration: this.configurationName,
      health: `https://${this.host}:${HTTPS}/health`,
      webhooks: [
        {
          name: 'deploy.policy.somagent.dev',
          admissionReviewVersions: ['v1'],
          sideEffects: 'None',
          failurePolicy: 'Fail',
          timeoutSeconds: 5,
          namespaceSelector: {
            matchExpressions: [
              { key: REGION_LABEL, operator: 'In', values: [region] },
              // Its own plane must be able to start while it is away.
              { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: [namespace] },
            ],
          },
          // What is being deleted must be able to lose its finalizers, whatever it looks like.
          matchConditions: [{ name: 'not-being-deleted', expression: '!has(object.metadata.deletionTimestamp)' }],
          rules: [
            rule('', ['pods', 'pods/ephemeralcontainers']),
            rule('apps', ['daemonsets', 'deployments', 'replicasets', 'statefulsets']),
            rule('batch', ['cronjobs', 'jobs']),
            rule('rbac.authorization.k8s.io', ['rolebindings', 'roles']),
          ],
          clientConfig: { service: { name: this.#instance, namespace, path: REVIEW, port: HTTPS } },
        },
      ],
    };
  }
}

/** A chart gives each of its objects a namespace; these kinds have none. */
function clusterWide<Kind extends ApiObject>(object: Kind): Kind {
  object.addJsonPatch(JsonPatch.remove('/metadata/namespace'));
  return object;
}
