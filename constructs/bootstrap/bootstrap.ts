import { Construct } from 'constructs';
import { ContentConfigMap } from '../core/content-config-map.ts';
import { instanceName } from '../core/labels.ts';
import type { ApiServerAddress } from '../core/pod-network.ts';
import type { SecretPlan, SecretPlanDocument } from '../core/secret-plan.ts';
import { type Rule, ServiceIdentity } from '../core/service-identity.ts';
import { JobWorkload, ScheduledWorkload } from '../core/workload.ts';

/** Options of {@link Bootstrap}. */
export interface BootstrapProps {
  /** Image `somagent/bootstrap`. */
  readonly image: string;
  /** Every secret of the region. It is closed here: construct the products that ask for secrets first. */
  readonly plan: SecretPlan;
  /** Where the Kubernetes API is. @default anywhere, ports 443 and 6443 */
  readonly apiServer?: ApiServerAddress;
  /**
   * When certificates past two thirds of their life are renewed, in the five fields of cron, UTC.
   * @default '17 3 * * *', every night
   */
  readonly renewal?: string;
}

/**
 * Generates the secrets of a region inside the cluster: the authority, certificates, passwords and tokens that are
 * absent. No value passes through manifests, state or logs. Deploy it before everything that mounts a secret.
 */
export class Bootstrap extends Construct {
  /** What the Job was told to make. */
  readonly document: SecretPlanDocument;
  /** Name of the Job, hash included. */
  readonly jobName: string;

  constructor(scope: Construct, id: string, props: BootstrapProps) {
    super(scope, id);
    const identity = { product: 'bootstrap', instance: instanceName(this), component: 'secrets' };
    this.document = props.plan.close();
    const plan = new ContentConfigMap(this, 'plan', {
      ...identity,
      name: `${identity.instance}-plan`,
      files: { 'plan.json': JSON.stringify(this.document, undefined, 2) },
    });
    const serviceIdentity = new ServiceIdentity(this, 'identity', {
      ...identity,
      name: `${identity.instance}-secrets`,
      rules: (namespace) => rights(this.document, namespace),
      namespaces: namespacesOf(this.document),
    });
    const task = {
      ...identity,
      image: props.image,
      command: ['node', '/app/main.js', 'secrets'],
      env: { PLAN: '/etc/soma/plan.json' },
      files: [{ path: '/etc/soma', config: plan }],
      serviceIdentity,
      resources: { cpu: '50m', memory: '96Mi', memoryLimit: '256Mi' },
    };
    const job = new JobWorkload(this, 'job', task);
    job.network.allowToApiServer(props.apiServer);
    job.node.addDependency(plan, serviceIdentity);
    const renewal = { ...task, component: 'renewal', network: job.network, schedule: props.renewal ?? '17 3 * * *' };
    new ScheduledWorkload(this, 'renewal', renewal).node.addDependency(job);
    this.jobName = job.jobName;
  }
}

/** It may read and renew the secrets of its plan and no other; the API server knows no names yet when it creates one. */
function rights({ authority, secrets }: SecretPlanDocument, namespace: string): Rule[] {
  const planned = secrets.filter(({ namespaces }) => namespaces.includes(namespace));
  const names = [...(authority.namespace === namespace ? [authority] : []), ...planned].map(({ name }) => name);
  return [
    { resources: ['secrets'], verbs: ['create'] },
    { resources: ['secrets'], verbs: ['get', 'update'], resourceNames: names },
  ];
}

function namespacesOf(document: SecretPlanDocument): string[] {
  const all = [document.authority.namespace, ...document.secrets.flatMap(({ namespaces }) => namespaces)];
  return [...new Set(all)].sort();
}
